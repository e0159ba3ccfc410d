/* The paper's example, then one training step of a layer, through the C interface; then a range of channels of a wider tensor,
 * on threads; an epilogue; a transposed convolution. Exits with 1 where a number is wrong.
 *
 *   cargo rustc --release --no-default-features --features capi --crate-type cdylib
 *   cc tests/capi/example.c -Isrc/capi -Ltarget/release -lconvrelu -lpthread -lm -o example &&
 *       LD_LIBRARY_PATH=target/release ./example
 */
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "convrelu.h"

enum { MOST_THREADS = 4 };

static convrelu_error error = {.struct_size = sizeof(convrelu_error)};

/* Every call says what is wrong with it. */
static void check(convrelu_status status) {
    if (status == CONVRELU_OK) return;
    char message[200];
    convrelu_error_message(&error, message, sizeof message, NULL);
    fprintf(stderr, "convrelu: %s\n", message);
    exit(1);
}

static void expect(const char *what, const float *values, const float *expected, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (fabsf(values[i] - expected[i]) > 1e-6f) {
            fprintf(stderr, "%s[%zu] is %g, not %g\n", what, i, values[i], expected[i]);
            exit(1);
        }
    }
    printf("%-17s", what);
    for (size_t i = 0; i < len; i++) printf(" %g", values[i]);
    printf("\n");
}

/* Threads are the caller's: a call hands over its tasks, and this runs each on a thread of its own. A pool would do the same with
 * threads that wait for it. */
struct job {
    convrelu_task task;
    void *task_context;
    size_t index;
};

static void *run(void *argument) {
    const struct job *job = argument;
    job->task(job->task_context, job->index);
    return NULL;
}

static void parallel_for(void *context, size_t tasks, convrelu_task task, void *task_context) {
    size_t *started = context;
    struct job jobs[MOST_THREADS];
    pthread_t threads[MOST_THREADS];
    int alone[MOST_THREADS];
    for (size_t i = 0; i < tasks; i++) {
        jobs[i] = (struct job){task, task_context, i};
        alone[i] = pthread_create(&threads[i], NULL, run, &jobs[i]) != 0;
        if (alone[i]) run(&jobs[i]); /* Where there are no more threads, this one does it. */
    }
    for (size_t i = 0; i < tasks; i++) {
        if (!alone[i]) pthread_join(threads[i], NULL);
    }
    *started += tasks;
}

#define READ(array) ((convrelu_input){array, sizeof(array) / sizeof(float)})
#define WRITE(array) ((convrelu_output){array, sizeof(array) / sizeof(float)})

/* Channels 8 to 56 of a tensor of 64, channels last, on one thread and on several: the same bits. */
static void wide_tensor_on_threads(void) {
    enum { SIZE = 32, WIDE = 64, FIRST = 8, CHANNELS = 48 };
    convrelu_desc desc;
    check(convrelu_conv2d_init(&desc, sizeof desc, 1, CHANNELS, CHANNELS, SIZE, SIZE, 3, 3, &error));
    desc.layout = CONVRELU_NHWC;
    desc.input_pitch = WIDE;
    for (int axis = 0; axis < 2; axis++) desc.padding_before[axis] = desc.padding_after[axis] = 1;
    convrelu_plan plan;
    check(convrelu_plan_init(&plan, sizeof plan, &desc, CONVRELU_ISA_AUTO, &error));
    check(convrelu_plan_set_threads(&plan, MOST_THREADS, &error));
    convrelu_lens lens = {.struct_size = sizeof lens};
    check(convrelu_plan_lens(&plan, &lens, &error));
    size_t len;
    check(convrelu_workspace_len(&plan, CONVRELU_FORWARD, &len, &error));

    float *wide = malloc(SIZE * SIZE * WIDE * sizeof *wide), *w = malloc(lens.weight * sizeof *w);
    float *y[2] = {malloc(lens.output * sizeof *y[0]), malloc(lens.output * sizeof *y[1])};
    float *workspace = malloc(len * sizeof *workspace);
    if (!wide || !w || !y[0] || !y[1] || !workspace) exit(1);
    for (size_t i = 0; i < SIZE * SIZE * WIDE; i++) wide[i] = (float)(i % 7) - 3;
    for (size_t i = 0; i < lens.weight; i++) w[i] = (float)(i % 5) - 2;

    size_t tasks = 0;
    for (int parallel = 0; parallel < 2; parallel++) {
        convrelu_forward_args args;
        check(convrelu_forward_args_init(&args, sizeof args, &error));
        args.input = (convrelu_input){wide + FIRST, lens.input};
        args.weight = (convrelu_input){w, lens.weight};
        args.threshold_kind = CONVRELU_THRESHOLDS_LINEAR; /* A plain convolution. */
        args.output = (convrelu_output){y[parallel], lens.output};
        args.workspace = (convrelu_output){workspace, len};
        args.parallel_for = parallel ? parallel_for : NULL;
        args.context = &tasks;
        check(convrelu_forward(&plan, &args, &error));
    }
    if (tasks < 2 || memcmp(y[0], y[1], lens.output * sizeof *y[0]) != 0) {
        fprintf(stderr, "%zu tasks gave other bits than one thread\n", tasks);
        exit(1);
    }
    printf("on threads        %zu tasks, the same bits\n", tasks);
    free(wide);
    free(w);
    free(y[0]);
    free(y[1]);
    free(workspace);
}

/* Batch normalisation, a residual connection and ReLU6 as part of a layer: its sums are not written and read again. */
static void epilogue(void) {
    convrelu_desc desc;
    check(convrelu_conv1d_init(&desc, sizeof desc, 1, 1, 2, 3, 1, &error));
    convrelu_plan plan;
    check(convrelu_plan_init(&plan, sizeof plan, &desc, CONVRELU_ISA_AUTO, &error));

    /* Of each output channel. */
    const float mean[] = {1, 2}, variance[] = {4, 1}, gamma[] = {1, 3}, beta[] = {0.5f, 0};
    float scale[2], shift[2];
    for (int d = 0; d < 2; d++) {
        scale[d] = gamma[d] / sqrtf(variance[d]);
        shift[d] = beta[d] - mean[d] * scale[d];
    }
    const float x[] = {1, 2, 3}, w[] = {2, 1}, residual[] = {0, 0, 4, -1, 0, 1};
    convrelu_epilogue epilogue;
    check(convrelu_epilogue_init(&epilogue, sizeof epilogue, &error));
    epilogue.scale = READ(scale);
    epilogue.shift = READ(shift);
    epilogue.residual = READ(residual);
    epilogue.low = 0;
    epilogue.high = 6;

    float y[6], workspace[4096];
    convrelu_forward_args args;
    check(convrelu_forward_args_init(&args, sizeof args, &error));
    args.input = READ(x);
    args.weight = READ(w);
    args.threshold_kind = CONVRELU_THRESHOLDS_LINEAR;
    args.output = WRITE(y);
    args.workspace = WRITE(workspace);
    args.epilogue = &epilogue;
    check(convrelu_forward(&plan, &args, &error));
    expect("epilogue", y, (const float[]){1, 2, 6, 0, 0, 4}, 6);

    /* The residual may be what the output holds. */
    memcpy(y, residual, sizeof y);
    epilogue.residual.data = NULL;
    epilogue.output_accumulation = CONVRELU_ADD;
    check(convrelu_forward(&plan, &args, &error));
    expect("epilogue, added", y, (const float[]){1, 2, 6, 0, 0, 4}, 6);
}

/* Two pixels become four, and one more: each is multiplied by the kernel, two apart. */
static void transposed(void) {
    convrelu_desc desc;
    check(convrelu_conv1d_init(&desc, sizeof desc, 1, 1, 1, 2, 2, &error));
    desc.kind = CONVRELU_TRANSPOSED;
    desc.stride[0] = 2;
    desc.output_padding[0] = 1;
    convrelu_plan plan;
    check(convrelu_plan_init(&plan, sizeof plan, &desc, CONVRELU_ISA_AUTO, &error));

    const float x[] = {1, 2}, w[] = {10, 20}, b[] = {0.5f}, g[] = {1, 2, 3, 4, 5};
    float y[5], dx[2], dw[2], db[1], workspace[4096];
    convrelu_forward_args forward;
    check(convrelu_forward_args_init(&forward, sizeof forward, &error));
    forward.input = READ(x);
    forward.weight = READ(w);
    forward.bias = READ(b);
    forward.output = WRITE(y);
    forward.workspace = WRITE(workspace);
    check(convrelu_forward(&plan, &forward, &error));
    expect("transposed", y, (const float[]){10.5f, 20.5f, 20.5f, 40.5f, 0.5f}, 5);

    convrelu_backward_input_args backward_input;
    check(convrelu_backward_input_args_init(&backward_input, sizeof backward_input, &error));
    backward_input.weight = READ(w);
    backward_input.grad_output = READ(g);
    backward_input.grad_input = WRITE(dx);
    backward_input.workspace = WRITE(workspace);
    check(convrelu_backward_input(&plan, &backward_input, &error));
    expect("its grad_input", dx, (const float[]){50, 110}, 2);

    convrelu_backward_weight_args backward_weight;
    check(convrelu_backward_weight_args_init(&backward_weight, sizeof backward_weight, &error));
    backward_weight.input = READ(x);
    backward_weight.grad_output = READ(g);
    backward_weight.grad_weight = WRITE(dw);
    backward_weight.grad_bias = WRITE(db);
    backward_weight.workspace = WRITE(workspace);
    check(convrelu_backward_weight(&plan, &backward_weight, &error));
    expect("its grad_weight", dw, (const float[]){7, 10}, 2);
    expect("its grad_bias", db, (const float[]){15}, 1);
}

int main(void) {
    uint32_t major, minor, patch, abi;
    check(convrelu_version(&major, &minor, &patch, &error));
    check(convrelu_abi(&abi, &error));
    printf("convrelu %u.%u.%u, interface %u\n", major, minor, patch, abi);
    if (abi != CONVRELU_ABI) return 1; /* Compiled with another header. */

    convrelu_desc desc;
    check(convrelu_conv1d_init(&desc, sizeof desc, 1, 1, 1, 3, 2, &error));
    convrelu_plan plan;
    check(convrelu_plan_init(&plan, sizeof plan, &desc, CONVRELU_ISA_AUTO, &error));

    const float x[] = {2, 3, 4}, w[] = {1, -1}, theta[] = {0, 3.5f}, g[] = {1, 1};
    float y[2], dx[3], dtheta[2], dw[2], db[1], workspace[4096];
    size_t len;
    for (uint32_t pass = CONVRELU_FORWARD; pass <= CONVRELU_BACKWARD_WEIGHT; pass++) {
        check(convrelu_workspace_len(&plan, pass, &len, &error));
        if (len > sizeof workspace / sizeof *workspace) return 1;
    }

    convrelu_forward_args forward;
    check(convrelu_forward_args_init(&forward, sizeof forward, &error));
    forward.input = READ(x);
    forward.weight = READ(w);
    forward.output = WRITE(y);
    forward.workspace = WRITE(workspace);
    /* What the thresholds are must be said: nothing is computed with others than those that are meant. */
    if (convrelu_forward(&plan, &forward, &error) != CONVRELU_INVALID_VALUE) return 1;
    forward.threshold_kind = CONVRELU_THRESHOLDS_UNIFORM;
    if (convrelu_forward(&plan, &forward, &error) != CONVRELU_NAN_THRESHOLD) return 1;
    forward.threshold_kind = CONVRELU_THRESHOLDS_PER_TAP;
    if (convrelu_forward(&plan, &forward, &error) != CONVRELU_BUFFER_TOO_SHORT) return 1;
    forward.thresholds = READ(theta);
    check(convrelu_forward(&plan, &forward, &error));
    expect("output", y, (const float[]){-1.5f, -1}, 2);

    convrelu_backward_input_args backward_input;
    check(convrelu_backward_input_args_init(&backward_input, sizeof backward_input, &error));
    backward_input.input = READ(x);
    backward_input.weight = READ(w);
    backward_input.threshold_kind = CONVRELU_THRESHOLDS_PER_TAP;
    backward_input.thresholds = READ(theta);
    backward_input.grad_output = READ(g);
    backward_input.grad_input = WRITE(dx);
    backward_input.grad_thresholds = WRITE(dtheta);
    backward_input.workspace = WRITE(workspace);
    check(convrelu_backward_input(&plan, &backward_input, &error));
    expect("grad_input", dx, (const float[]){1, 1, -1}, 3);
    expect("grad_thresholds", dtheta, (const float[]){0, -1}, 2);

    convrelu_backward_weight_args backward_weight;
    check(convrelu_backward_weight_args_init(&backward_weight, sizeof backward_weight, &error));
    backward_weight.input = READ(x);
    backward_weight.threshold_kind = CONVRELU_THRESHOLDS_PER_TAP;
    backward_weight.thresholds = READ(theta);
    backward_weight.grad_output = READ(g);
    backward_weight.grad_weight = WRITE(dw);
    backward_weight.grad_bias = WRITE(db);
    backward_weight.workspace = WRITE(workspace);
    check(convrelu_backward_weight(&plan, &backward_weight, &error));
    expect("grad_weight", dw, (const float[]){5, 7.5f}, 2);
    expect("grad_bias", db, (const float[]){2}, 1);

    /* Each gradient is optional, and replaces or adds. */
    backward_weight.grad_weight.data = NULL;
    backward_weight.grad_bias_accumulation = CONVRELU_ADD;
    check(convrelu_backward_weight(&plan, &backward_weight, &error));
    expect("grad_bias, added", db, (const float[]){4}, 1);

    /* A plain convolution needs no input for its gradient. */
    backward_input.input.data = NULL;
    backward_input.threshold_kind = CONVRELU_THRESHOLDS_LINEAR;
    check(convrelu_backward_input(&plan, &backward_input, &error));
    expect("grad_input, plain", dx, (const float[]){1, 0, -1}, 3);

    /* Packed once for many calls. */
    convrelu_lens lens = {.struct_size = sizeof lens};
    check(convrelu_plan_lens(&plan, &lens, &error));
    float *packed = malloc(lens.packed_weight * sizeof *packed);
    if (packed == NULL) return 1;
    convrelu_output room = {packed, lens.packed_weight};
    check(convrelu_pack_weight(&plan, CONVRELU_FORWARD, READ(w), room, &error));
    forward.weight = (convrelu_input){packed, lens.packed_weight};
    forward.weight_kind = CONVRELU_WEIGHT_PACKED;
    check(convrelu_forward(&plan, &forward, &error));
    expect("output, packed", y, (const float[]){-1.5f, -1}, 2);

    /* A mistake is a status, and a sentence. */
    forward.output.len = 1;
    if (convrelu_forward(&plan, &forward, &error) != CONVRELU_BUFFER_TOO_SHORT) return 1;
    char message[200];
    check(convrelu_error_message(&error, message, sizeof message, NULL));
    printf("refused:          %s\n", message);
    free(packed);

    wide_tensor_on_threads();
    epilogue();
    transposed();
    return 0;
}
