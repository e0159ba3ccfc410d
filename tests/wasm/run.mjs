// node run.mjs MODULE: its size, the paper's example and the speed of a layer of its size in DenseNet.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';

const path = process.argv[2];
const bytes = await readFile(path);
const { instance } = await WebAssembly.instantiate(bytes, {});
const { memory, forward, workspace_len, __heap_base } = instance.exports;

/** Puts arrays one after the other behind the module's own memory, and returns their addresses and views. */
function place(...arrays) {
    const align = 64;
    let end = __heap_base.value;
    const addresses = arrays.map(({ byteLength }) => {
        const address = Math.ceil(end / align) * align;
        end = address + byteLength;
        return address;
    });
    const missing = end - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / 65536));
    const views = arrays.map((array, i) => {
        const view = new array.constructor(memory.buffer, addresses[i], array.length);
        view.set(array);
        return view;
    });
    return { addresses, views };
}

/** Returns the output of a layer and a call that computes it again. */
function layer([inputs, outputs, height, width, rows, columns, top, left], input, weight, thresholds) {
    const shape = Uint32Array.of(inputs, outputs, height, width, rows, columns, top, left);
    const floats = workspace_len(place(shape).addresses[0]) >>> 0;
    assert.notEqual(floats, 0xffff_ffff, 'the layer is refused');
    const output = new Float32Array(outputs * (height + 2 * top - rows + 1) * (width + 2 * left - columns + 1));
    const { addresses, views } = place(shape, input, weight, thresholds, output, new Float32Array(floats));
    const call = () => assert.equal(forward(...addresses), 1);
    call();
    return { output: views[4], call };
}

const example = layer([1, 1, 1, 3, 1, 2, 0, 0], Float32Array.of(2, 3, 4), Float32Array.of(1, -1), Float32Array.of(0, 3.5));
assert.deepEqual([...example.output], [-1.5, -1]);

// 3×3, 48 to 12 channels, 32×32, against the formula in plain JavaScript.
const [inputs, outputs, size, kernel] = [48, 12, 32, 3];
const values = (length, step) => Float32Array.from({ length }, (_, i) => ((i * step) % 17) - 8);
const [x, w, theta] = [values(inputs * size * size, 5), values(outputs * inputs * kernel ** 2, 3), values(inputs * kernel ** 2, 7)];
const net = layer([inputs, outputs, size, size, kernel, kernel, 1, 1], x, w, theta);
for (let d = 0; d < outputs; d += 1) {
    for (let i = 0; i < size; i += 1) {
        for (let j = 0; j < size; j += 1) {
            let sum = 0;
            for (let c = 0; c < inputs; c += 1) {
                for (let tap = 0; tap < kernel ** 2; tap += 1) {
                    const [row, column] = [i + Math.floor(tap / kernel) - 1, j + (tap % kernel) - 1];
                    const inside = row >= 0 && row < size && column >= 0 && column < size;
                    const value = inside ? x[(c * size + row) * size + column] : 0;
                    sum += w[(d * inputs + c) * kernel ** 2 + tap] * Math.max(value, theta[c * kernel ** 2 + tap]);
                }
            }
            assert.equal(net.output[(d * size + i) * size + j], sum, `output ${d} at ${i}, ${j}`);
        }
    }
}

for (let i = 0; i < 20; i += 1) net.call();
let best = Infinity;
for (let i = 0; i < 100; i += 1) {
    const start = performance.now();
    net.call();
    best = Math.min(best, performance.now() - start);
}
const speed = (2 * outputs * inputs * kernel ** 2 * size ** 2) / best / 1e6;
console.log(`${basename(path)}: ${bytes.length} bytes; right; ${speed.toFixed(2)} GFLOP/s on 48→12, 3×3, 32×32`);
