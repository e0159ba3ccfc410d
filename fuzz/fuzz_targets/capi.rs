//! The C interface as a careless caller uses it: descriptors, plans and headers of any bytes, buffers of any length that
//! are null, misaligned or overlap. What it promises: no undefined behaviour (AddressSanitizer watches, every buffer is an
//! allocation of exactly its length), nothing is written where a call is refused, and the safe interface gives the same.
#![no_main]
#![allow(unsafe_code)]

mod chance;
#[path = "../../tests/common/rehash.rs"]
mod rehash;

use std::ffi::{c_char, c_void};
use std::mem::{MaybeUninit, offset_of};
use std::ptr;

use arbitrary::{Arbitrary, Unstructured};
use convrelu::capi::*;
use convrelu::transposed::{self, ConvTranspose, ConvTransposeDesc};
use convrelu::{
    Accumulation, BackwardInput, BackwardWeight, ConvDesc, ConvDescBuilder, ConvRelu, Epilogue, Error, Forward,
    Gradient, InputGradients, Isa, Layout, Residual, Serial, Thresholds, Weight, WeightGradients, adarelu,
};
use libfuzzer_sys::fuzz_target;

use chance::rarely;

/// Elements of the largest buffer.
const LARGEST: usize = 20_000;

/// Multiply-adds of the largest layer: enough for several tasks.
const MOST_WORK: f64 = 300_000.0;

/// A number: small, or (not from the careful) any at all.
fn number(u: &mut Unstructured<'_>, small: usize, careless: bool) -> arbitrary::Result<usize> {
    if rarely(u, 24)? && careless { usize::arbitrary(u) } else { u.int_in_range(0..=small) }
}

/// A number that names something: one of the first few more often than not.
fn name(u: &mut Unstructured<'_>, few: u32) -> arbitrary::Result<u32> {
    if rarely(u, 24)? { u32::arbitrary(u) } else { u.int_in_range(0..=few) }
}

/// Bytes of a struct that are overwritten.
#[derive(Arbitrary, Debug)]
struct Damage {
    at: u16,
    value: u64,
    wide: bool,
}

/// A struct anywhere in memory, and damaged.
struct Raw<T> {
    memory: Box<[MaybeUninit<T>; 2]>,
    offset: usize,
}

impl<T: Copy> Raw<T> {
    fn new(value: T, damage: &[Damage], offset: usize) -> Self {
        let mut raw = Self { memory: Box::new([MaybeUninit::zeroed(); 2]), offset: offset % align_of::<T>() };
        let start = raw.as_mut_ptr().cast::<u8>();
        // SAFETY: there is room for two, and the offset is less than one.
        unsafe { raw.as_mut_ptr().write_unaligned(value) };
        for damage in damage {
            let len = if damage.wide { 8 } else { 1 };
            let at = usize::from(damage.at) % (size_of::<T>() + 1 - len);
            // SAFETY: in the struct, whose every byte pattern is a value.
            unsafe { ptr::copy_nonoverlapping(damage.value.to_ne_bytes().as_ptr(), start.add(at), len) };
        }
        raw
    }

    fn as_mut_ptr(&mut self) -> *mut T {
        // SAFETY: within the memory.
        unsafe { self.memory.as_mut_ptr().cast::<u8>().add(self.offset).cast() }
    }

    fn get(&mut self) -> T {
        // SAFETY: written by `new`.
        unsafe { self.as_mut_ptr().read_unaligned() }
    }
}

/// How long a buffer is, compared to what the call needs.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Len {
    Exact,
    Longer(u8),
    Shorter(u8),
    Any(u16),
}

/// What is wrong with where it lies.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Lies {
    Apart,
    ApartToo,
    AsWell,
    Null,
    /// Null, and no elements.
    Nothing,
    /// By so many bytes.
    Misaligned(u8),
    /// In another buffer, from an element on.
    Within(u8, u16),
    /// With a length that no buffer has.
    Endless(u8),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Buffer {
    len: Len,
    lies: Lies,
    /// Most buffers have nothing wrong with them.
    careless: u8,
}

impl Buffer {
    fn len(self, required: usize) -> usize {
        let required = required.min(LARGEST);
        if self.careless < 200 {
            return required;
        }
        match self.len {
            Len::Exact => required,
            Len::Longer(by) => required + usize::from(by),
            Len::Shorter(by) => required.saturating_sub(by.into()),
            Len::Any(len) => usize::from(len) % (LARGEST + 1),
        }
    }

    fn lies(self) -> Lies {
        if self.careless % 16 == 15 { self.lies } else { Lies::Apart }
    }
}

/// The memory of a call.
struct Memory {
    allocations: Vec<Box<[f32]>>,
    given: Vec<(*mut f32, usize)>,
}

impl Memory {
    fn new(buffers: &[Buffer], required: &[usize], seed: u64) -> Self {
        let mut state = seed;
        let mut value = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            ((state >> 60) as f32 - 8.0) / 4.0
        };
        let allocations: Vec<Box<[f32]>> = buffers
            .iter()
            .zip(required)
            .map(|(buffer, &required)| (0..buffer.len(required)).map(|_| value()).collect())
            .collect();
        let mut memory = Self { allocations, given: Vec::new() };
        let all: Vec<(*mut f32, usize)> = memory.allocations.iter_mut().map(|a| (a.as_mut_ptr(), a.len())).collect();
        memory.given = buffers
            .iter()
            .zip(&all)
            .map(|(buffer, &(data, len))| match buffer.lies() {
                Lies::Apart | Lies::ApartToo | Lies::AsWell => (data, len),
                Lies::Null => (ptr::null_mut(), len),
                Lies::Nothing => (ptr::null_mut(), 0),
                Lies::Misaligned(by) if len > 0 => (data.wrapping_byte_add(usize::from(by) % 4), len - 1),
                Lies::Misaligned(_) => (data, len),
                Lies::Within(other, from) => {
                    let (data, whole) = all[usize::from(other) % all.len()];
                    let from = usize::from(from) % (whole + 1);
                    (data.wrapping_add(from), len.min(whole - from))
                }
                // Refused for its length alone, which no allocation has.
                Lies::Endless(less) => (data, usize::MAX - usize::from(less)),
            })
            .collect();
        memory
    }

    fn input(&self, index: usize) -> convrelu_input {
        let (data, len) = self.given[index];
        convrelu_input { data, len }
    }

    fn output(&self, index: usize) -> convrelu_output {
        let (data, len) = self.given[index];
        convrelu_output { data, len }
    }

    /// What the call is given to read or write, as it is now.
    fn values(&self, index: usize) -> Vec<f32> {
        let (data, len) = self.given[index];
        if data.is_null() {
            return Vec::new();
        }
        // SAFETY: called where the call has accepted it, or for allocations as they are.
        unsafe { std::slice::from_raw_parts(data, len) }.to_vec()
    }

    /// Whether a buffer is given as it was allocated, whole.
    fn is_own(&self, index: usize) -> bool {
        let (own, (data, len)) = (&self.allocations[index], self.given[index]);
        data.cast_const() == own.as_ptr() && len == own.len()
    }

    /// Whether a buffer is given within an allocation.
    fn lies_in(&self, index: usize, allocation: usize) -> bool {
        self.allocations[allocation].as_ptr_range().contains(&self.given[index].0.cast_const())
    }

    fn bits(&self) -> Vec<Vec<u32>> {
        self.allocations.iter().map(|values| values.iter().map(|value| value.to_bits()).collect()).collect()
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Call {
    Forward,
    BackwardInput,
    BackwardWeight,
    AdareluForward,
    AdareluBackward,
    Pack,
    CheckPacked,
    Numbers,
}

/// What a caller's function does with the tasks of a call.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
enum Workers {
    /// There is no function.
    None,
    Serial,
    Reversed,
    Scoped,
    /// This task again.
    Twice(u8),
    /// Not this task.
    Never(u8),
    /// Another one.
    Another(usize),
    /// All at once, each on two threads.
    Doubled,
    /// All, without their context.
    Forgotten,
}

impl Workers {
    /// Good ones more often than not.
    fn chosen(u: &mut Unstructured<'_>) -> arbitrary::Result<Self> {
        if rarely(u, 4)? {
            return Self::arbitrary(u);
        }
        Ok(*u.choose(&[Self::None, Self::Serial, Self::Reversed, Self::Scoped])?)
    }

    fn are_good(self) -> bool {
        matches!(self, Self::None | Self::Serial | Self::Reversed | Self::Scoped)
    }

    fn callback(self) -> convrelu_parallel_for {
        if self == Self::None { None } else { Some(parallel_for) }
    }
}

/// # Safety
///
/// The context is where [`Workers`] lie.
unsafe extern "C" fn parallel_for(context: *mut c_void, tasks: usize, task: convrelu_task, task_context: *mut c_void) {
    struct Shared(*mut c_void);
    // SAFETY: tasks run on any thread.
    unsafe impl Sync for Shared {}
    let shared = Shared(task_context);
    let run = |index: usize| {
        let Shared(task_context) = &shared;
        // SAFETY: before this function returns.
        unsafe { task(*task_context, index) };
    };
    let scoped = |times: usize| {
        std::thread::scope(|scope| {
            for index in (0..tasks).flat_map(|index| std::iter::repeat_n(index, times)) {
                scope.spawn(move || run(index));
            }
        });
    };
    // SAFETY: the caller's promise.
    match unsafe { *context.cast::<Workers>() } {
        Workers::None | Workers::Serial => (0..tasks).for_each(run),
        Workers::Reversed => (0..tasks).rev().for_each(run),
        Workers::Scoped => scoped(1),
        Workers::Twice(again) => (0..tasks).chain([usize::from(again) % tasks]).for_each(run),
        Workers::Never(left) => (0..tasks).filter(|index| *index != usize::from(left) % tasks).for_each(run),
        Workers::Another(other) => (0..tasks).chain([other]).for_each(run),
        Workers::Doubled => scoped(2),
        // SAFETY: null is no task.
        Workers::Forgotten => (0..tasks).for_each(|index| unsafe { task(ptr::null_mut(), index) }),
    }
}

#[derive(Debug)]
struct Input {
    desc: convrelu_desc,
    isa: u32,
    threads: usize,
    desc_damage: Vec<Damage>,
    plan_damage: Vec<Damage>,
    args_damage: Vec<Damage>,
    epilogue_damage: Vec<Damage>,
    offsets: [u8; 4],
    call: Call,
    buffers: [Buffer; 9],
    ended: bool,
    bounds: [f32; 2],
    weight_kind: u32,
    threshold_kind: u32,
    threshold: f32,
    accumulation: [u32; 2],
    workers: Workers,
    nan: Option<u16>,
    pass: u32,
    inner: usize,
    packed: Vec<(u16, u32)>,
    rehashed: bool,
    seed: u64,
    error_bytes: [u8; size_of::<convrelu_error>()],
    error_given: u8,
    capacity: u8,
}

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        // Callers that make every mistake at once are refused for the first one. So most describe a layer, and half of them
        // know what a buffer is, too.
        let (careless, damaged) = (rarely(u, 4)?, rarely(u, 2)?);
        let least = usize::from(!careless);
        let rank = name(u, 3)?.max(least as u32);
        let groups = number(u, 5, careless)?.max(least);
        let mut axes = |small: usize, least: usize| -> arbitrary::Result<[usize; 3]> {
            Ok([
                number(u, small, careless)?.max(least),
                number(u, small, careless)?.max(least),
                number(u, small, careless)?.max(least),
            ])
        };
        let (size, kernel) = (axes(12, least)?, axes(4, least)?);
        let (stride, dilation) = (axes(3, least)?, axes(3, least)?);
        let (padding_before, padding_after) = (axes(4, 0)?, axes(4, 0)?);
        let rare = |u: &mut Unstructured<'a>| -> arbitrary::Result<Vec<Damage>> {
            if rarely(u, 6)? && damaged {
                (0..u.int_in_range(1..=3)?).map(|_| Damage::arbitrary(u)).collect()
            } else {
                Ok(vec![])
            }
        };
        let offset = |u: &mut Unstructured<'a>| if rarely(u, 40)? { u8::arbitrary(u) } else { Ok(0) };
        let mut desc = convrelu_desc {
            struct_size: size_of::<convrelu_desc>(),
            rank,
            layout: name(u, 1)?,
            batch: number(u, 3, careless)?,
            in_channels: number(u, 9, careless)?.max(least).wrapping_mul(groups),
            out_channels: number(u, 9, careless)?.max(least).wrapping_mul(groups),
            groups,
            size,
            kernel,
            stride,
            dilation,
            padding_before,
            padding_after,
            output_padding: [0; 3],
            input_pitch: 0,
            output_pitch: 0,
            kind: name(u, 1)?,
            reserved: [0; 7],
        };
        let transposed = desc.kind == CONVRELU_TRANSPOSED;
        if transposed {
            desc.output_padding = [number(u, 2, careless)?, number(u, 2, careless)?, number(u, 2, careless)?];
        }
        if rarely(u, 3)? {
            // One too few, packed, or with gaps.
            let packed = match transposed {
                false => rust_desc(&desc).map_or([0; 2], |desc| [desc.input_pitch(), desc.output_pitch()]),
                true => rust_transposed(&desc).map_or([0; 2], |desc| [desc.input_pitch(), desc.output_pitch()]),
            };
            let mut pitch = |packed: usize| Ok(packed.wrapping_add(number(u, 4, careless)?).wrapping_sub(1));
            (desc.input_pitch, desc.output_pitch) = (pitch(packed[0])?, pitch(packed[1])?);
        }
        Ok(Self {
            desc,
            isa: match name(u, 5)? {
                other if !careless && !safe_isa(other).is_available() => CONVRELU_ISA_AUTO,
                isa => isa,
            },
            threads: number(u, 4, careless)?,
            desc_damage: rare(u)?,
            plan_damage: rare(u)?,
            args_damage: rare(u)?,
            epilogue_damage: rare(u)?,
            offsets: [offset(u)?, offset(u)?, offset(u)?, offset(u)?],
            call: Call::arbitrary(u)?,
            buffers: <[Buffer; 9]>::arbitrary(u)?.map(|buffer| match damaged {
                true => buffer,
                false => Buffer { careless: 0, ..buffer },
            }),
            weight_kind: name(u, 1)?,
            ended: rarely(u, if transposed { 16 } else { 2 })?,
            bounds: if rarely(u, 8)? { Arbitrary::arbitrary(u)? } else { [-0.5, 2.0] },
            threshold_kind: match transposed && !rarely(u, 16)? {
                true => *u.choose(&[CONVRELU_THRESHOLDS_UNSET, CONVRELU_THRESHOLDS_LINEAR])?,
                false => name(u, 4)?,
            },
            threshold: if rarely(u, 8)? { f32::arbitrary(u)? } else { 0.25 },
            accumulation: [name(u, 1)?, name(u, 1)?],
            workers: Workers::chosen(u)?,
            nan: if rarely(u, 16)? { Some(u16::arbitrary(u)?) } else { None },
            pass: name(u, 4)?,
            inner: number(u, 5, careless)?,
            packed: if rarely(u, 3)? { Arbitrary::arbitrary(u)? } else { vec![] },
            rehashed: bool::arbitrary(u)?,
            seed: u64::arbitrary(u)?,
            error_bytes: Arbitrary::arbitrary(u)?,
            error_given: u8::arbitrary(u)?,
            capacity: u8::arbitrary(u)?,
        })
    }
}

const ERROR: convrelu_error = convrelu_error {
    struct_size: size_of::<convrelu_error>(),
    status: 0,
    argument: 0,
    values: [0; 3],
    reserved: [0; 2],
};

/// Whether a call succeeds.
fn reported(input: &Input, call: impl FnOnce(*mut convrelu_error) -> convrelu_status) -> bool {
    status_of(input, call) == convrelu_status::CONVRELU_OK
}

/// Makes a call with an error to fill, with none, or with one that cannot be filled; whatever it says can be shown.
fn status_of(input: &Input, call: impl FnOnce(*mut convrelu_error) -> convrelu_status) -> convrelu_status {
    if input.error_given % 16 == 1 {
        let mut odd = convrelu_error { struct_size: 8, ..ERROR };
        assert_ne!(call(&mut odd), convrelu_status::CONVRELU_OK);
        assert_eq!(odd, convrelu_error { struct_size: 8, ..ERROR });
        return convrelu_status::CONVRELU_STRUCT_SIZE;
    }
    let mut error = ERROR;
    let given = !input.error_given.is_multiple_of(16);
    let status = call(if given { &mut error } else { ptr::null_mut() });
    if given {
        assert_eq!(error.status, status as u32);
    }
    let mut len = usize::MAX;
    let mut message = vec![0x55 as c_char; input.capacity.into()];
    // SAFETY: as long as it says.
    let shown = unsafe { convrelu_error_message(&error, message.as_mut_ptr(), message.len(), &mut len) };
    if input.capacity == 0 {
        assert_ne!(shown, convrelu_status::CONVRELU_OK);
    } else {
        assert_eq!(shown, convrelu_status::CONVRELU_OK);
        let text = message.iter().take_while(|&&c| c != 0).map(|&c| c as u8).collect::<Vec<u8>>();
        let room = message.len() - 1;
        // Cut between characters, none of which is longer than four bytes.
        assert!(str::from_utf8(&text).is_ok());
        assert!(if len <= room { text.len() == len } else { text.len() <= room && text.len() + 3 >= room });
    }
    status
}

/// Makes a call of a pass. Whether it succeeds; where it is refused, nothing is written but by wrong workers.
fn passes(
    input: &Input,
    memory: &Memory,
    written: &[usize],
    call: impl FnOnce(*mut convrelu_error) -> convrelu_status,
) -> bool {
    let before = memory.bits();
    let status = status_of(input, call);
    if status == convrelu_status::CONVRELU_OK {
        return true;
    }
    let spoiled = status == convrelu_status::CONVRELU_EXECUTOR;
    assert!(!spoiled || !input.workers.are_good(), "good workers were refused");
    for (index, (before, after)) in before.iter().zip(memory.bits()).enumerate() {
        // What is written may lie anywhere then.
        let may_change = spoiled && written.iter().any(|&w| memory.lies_in(w, index));
        assert!(may_change || *before == after, "a call that was refused has written");
    }
    false
}

/// The descriptor as the safe interface makes it.
fn rust_desc(desc: &convrelu_desc) -> Result<ConvDesc, Error> {
    fn build<const R: usize>(builder: ConvDescBuilder<R>, desc: &convrelu_desc) -> Result<ConvDesc, Error> {
        fn first<const R: usize>(values: &[usize; 3]) -> [usize; R] {
            std::array::from_fn(|axis| values[axis])
        }
        let mut builder = builder
            .stride(first(&desc.stride))
            .dilation(first(&desc.dilation))
            .padding_before_after(first(&desc.padding_before), first(&desc.padding_after))
            .groups(desc.groups)
            .layout(if desc.layout == CONVRELU_NHWC { Layout::Nhwc } else { Layout::Nchw });
        if desc.input_pitch > 0 {
            builder = builder.input_pitch(desc.input_pitch);
        }
        if desc.output_pitch > 0 {
            builder = builder.output_pitch(desc.output_pitch);
        }
        builder.build()
    }
    let convrelu_desc { batch, in_channels: i, out_channels: o, size: s, kernel: k, .. } = *desc;
    match desc.rank {
        1 => build(ConvDesc::conv1d(batch, i, o, [s[0]], [k[0]]), desc),
        2 => build(ConvDesc::conv2d(batch, i, o, [s[0], s[1]], [k[0], k[1]]), desc),
        _ => build(ConvDesc::conv3d(batch, i, o, s, k), desc),
    }
}

/// The same of a transposed convolution.
fn rust_transposed(desc: &convrelu_desc) -> Result<ConvTransposeDesc, Error> {
    macro_rules! build {
        ($constructor:ident, $rank:literal) => {{
            macro_rules! axes {
                ($field:ident) => {
                    std::array::from_fn::<usize, $rank, _>(|axis| desc.$field[axis])
                };
            }
            let (inputs, outputs) = (desc.in_channels, desc.out_channels);
            let mut builder = ConvTransposeDesc::$constructor(desc.batch, inputs, outputs, axes!(size), axes!(kernel))
                .stride(axes!(stride))
                .dilation(axes!(dilation))
                .padding_before_after(axes!(padding_before), axes!(padding_after))
                .output_padding(axes!(output_padding))
                .groups(desc.groups)
                .layout(if desc.layout == CONVRELU_NHWC { Layout::Nhwc } else { Layout::Nchw });
            if desc.input_pitch > 0 {
                builder = builder.input_pitch(desc.input_pitch);
            }
            if desc.output_pitch > 0 {
                builder = builder.output_pitch(desc.output_pitch);
            }
            builder.build()
        }};
    }
    match desc.rank {
        1 => build!(conv1d, 1),
        2 => build!(conv2d, 2),
        _ => build!(conv3d, 3),
    }
}

/// The plan of the safe interface.
#[derive(Clone, Copy)]
enum Safe {
    Plain(ConvRelu),
    Transposed(ConvTranspose),
}

impl Safe {
    fn of(plan: &convrelu_plan) -> Self {
        const SAME: &str = "a plan that the C interface accepts";
        let isa = safe_isa(plan.isa);
        if plan.desc.kind == CONVRELU_TRANSPOSED {
            let desc = rust_transposed(&plan.desc).expect(SAME);
            Self::Transposed(ConvTranspose::with_isa(desc, isa).expect(SAME).with_threads(plan.threads))
        } else {
            let desc = rust_desc(&plan.desc).expect(SAME);
            Self::Plain(ConvRelu::with_isa(desc, isa).expect(SAME).with_threads(plan.threads))
        }
    }

    fn flops(&self) -> f64 {
        match self {
            Self::Plain(plan) => plan.desc().flops(),
            Self::Transposed(plan) => plan.desc().flops(),
        }
    }

    /// Elements of the weight, packed for the forward pass.
    fn packed_len(&self) -> usize {
        match self {
            Self::Plain(plan) => plan.packed_weight_len(),
            Self::Transposed(plan) => plan.packed_weight_len(),
        }
    }
}

fn safe_isa(isa: u32) -> Isa {
    match isa {
        CONVRELU_ISA_SCALAR => Isa::Scalar,
        CONVRELU_ISA_NEON => Isa::Neon,
        CONVRELU_ISA_AVX2 => Isa::Avx2,
        CONVRELU_ISA_AVX512 => Isa::Avx512,
        _ => Isa::Simd128,
    }
}

/// Packs a weight into a buffer as well as it fits, then damages it. Whether it is good.
fn pack(input: &Input, plan: *const convrelu_plan, pass: u32, memory: &mut Memory, index: usize, len: usize) -> bool {
    let weight = vec![0.5; len.min(LARGEST)];
    let buffer = &mut memory.allocations[index];
    let to = convrelu_output { data: buffer.as_mut_ptr(), len: buffer.len() };
    let from = convrelu_input { data: weight.as_ptr(), len: weight.len() };
    // SAFETY: as long as they say.
    let packed = unsafe { convrelu_pack_weight(plan, pass, from, to, ptr::null_mut()) };
    for &(at, bits) in &input.packed {
        if !buffer.is_empty() {
            // The header more often than not.
            let at = if at & 1 == 0 { usize::from(at >> 1) % 16 } else { usize::from(at >> 1) };
            let at = at % buffer.len();
            buffer[at] = f32::from_bits(bits);
        }
    }
    if input.rehashed && buffer.len() >= 16 {
        rehash::rehash(buffer);
    }
    packed == convrelu_status::CONVRELU_OK && input.packed.is_empty()
}

/// Both interfaces run the same kernels: bits are equal.
fn same(found: &[f32], expected: &[f32], what: &str) {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(found), bits(expected), "{what}");
}

fuzz_target!(|input: Input| {
    // SAFETY: every pointer below is null, misaligned, or points to as much as it says.
    unsafe { run(&input) }
});

unsafe fn run(input: &Input) {
    let mut desc = Raw::new(input.desc, &input.desc_damage, input.offsets[0].into());
    let empty = MaybeUninit::<convrelu_plan>::zeroed();
    let mut plan = Raw::new(unsafe { empty.assume_init() }, &[], input.offsets[1].into());
    let before = plan.get();
    let (to, from) = (plan.as_mut_ptr(), desc.as_mut_ptr());
    let planned =
        reported(input, |error| unsafe { convrelu_plan_init(to, size_of::<convrelu_plan>(), from, input.isa, error) });
    assert!(planned || plan.get() == before);
    if planned {
        let threads = input.threads;
        let set = unsafe { convrelu_plan_set_threads(to, threads, ptr::null_mut()) };
        assert_eq!(set, convrelu_status::CONVRELU_OK);
    }
    let good = plan.get();
    let mut plan = Raw::new(good, &input.plan_damage, input.offsets[1].into());
    let value = plan.get();
    let plan = plan.as_mut_ptr();

    let mut lens: convrelu_lens = unsafe { MaybeUninit::zeroed().assume_init() };
    lens.struct_size = size_of::<convrelu_lens>();
    let measured = reported(input, |error| unsafe { convrelu_plan_lens(plan, &mut lens, error) });
    let mut workspace = [0; 5];
    for (pass, len) in (0..).zip(&mut workspace) {
        assert_eq!(measured, reported(input, |error| unsafe { convrelu_workspace_len(plan, pass, len, error) }));
    }
    // Layers that would take long are measured alone.
    let all =
        [lens.input, lens.output, lens.weight, lens.thresholds, lens.packed_weight, lens.packed_weight_transposed];
    let safe = measured.then(|| Safe::of(&value));
    if safe.is_some_and(|safe| safe.flops() > 2.0 * MOST_WORK)
        || all.iter().chain(&workspace).any(|&len| len > LARGEST && measured && len < usize::MAX / 8)
    {
        return;
    }

    let mut workers = input.workers;
    let made = Made {
        input,
        plan,
        lens,
        workspace,
        safe,
        packed: input.weight_kind == CONVRELU_WEIGHT_PACKED,
        per_tap: input.threshold_kind == CONVRELU_THRESHOLDS_PER_TAP,
        accumulation: input.accumulation.map(|accumulation| match accumulation {
            CONVRELU_ADD => Accumulation::Add,
            _ => Accumulation::Overwrite,
        }),
        parallel_for: workers.callback(),
        context: ptr::from_mut(&mut workers).cast::<c_void>(),
    };
    match input.call {
        Call::Forward => made.forward(),
        Call::BackwardInput => made.backward_input(),
        Call::BackwardWeight => made.backward_weight(),
        Call::AdareluForward => made.adarelu_forward(),
        Call::AdareluBackward => made.adarelu_backward(),
        Call::Pack => made.pack(),
        Call::CheckPacked => made.check_packed(),
        Call::Numbers => unsafe { numbers(input, plan) },
    }
}

/// Damage of a struct, but for its buffers, which lie between its size and `buffers_end`.
fn damage_after(damage: &[Damage], buffers_end: usize, size: usize) -> Vec<Damage> {
    let damage = damage.iter().map(|damage| {
        let at = usize::from(damage.at);
        let at = if at % 4 == 0 { 0 } else { buffers_end + at % (size - buffers_end) };
        // Eight bytes from the last ones would begin before.
        Damage { at: at as u16, value: damage.value, wide: damage.wide && at + 8 <= size }
    });
    damage.collect()
}

/// A plan and all else that calls are made of.
#[derive(Clone, Copy)]
struct Made<'a> {
    input: &'a Input,
    plan: *mut convrelu_plan,
    lens: convrelu_lens,
    workspace: [usize; 5],
    /// The same plan in the safe interface.
    safe: Option<Safe>,
    packed: bool,
    per_tap: bool,
    accumulation: [Accumulation; 2],
    parallel_for: convrelu_parallel_for,
    context: *mut c_void,
}

/// Calls, and what the safe interface makes of the same. Pointers are as [`run`] says.
impl Made<'_> {
    fn is_intact(&self) -> bool {
        self.input.args_damage.is_empty()
    }

    /// The thresholds where they are not one per tap.
    fn uniform(&self) -> Thresholds<'static> {
        match self.input.threshold_kind {
            CONVRELU_THRESHOLDS_LINEAR => Thresholds::LINEAR,
            CONVRELU_THRESHOLDS_RELU => Thresholds::RELU,
            kind => {
                assert_eq!(kind, CONVRELU_THRESHOLDS_UNIFORM, "no kind, but accepted");
                Thresholds::Uniform(self.input.threshold)
            }
        }
    }

    /// Elements of the gradient of the thresholds.
    fn grad_thresholds(&self) -> usize {
        if self.per_tap { self.lens.thresholds } else { 1 }
    }

    fn set_nan(&self, memory: &mut Memory, index: usize) {
        if let Some(at) = self.input.nan
            && !memory.allocations[index].is_empty()
        {
            let at = usize::from(at) % memory.allocations[index].len();
            memory.allocations[index][at] = f32::NAN;
        }
    }

    /// Damage that is not a size, a kind or a reserved field would move pointers, which is the caller's promise to keep.
    fn damage(&self, buffers_end: usize, size: usize) -> Vec<Damage> {
        damage_after(&self.input.args_damage, buffers_end, size)
    }

    fn forward(&self) {
        let Self { input, plan, lens, workspace, safe, packed, per_tap, parallel_for, context, .. } = *self;
        let weight = if packed { lens.packed_weight } else { lens.weight };
        let work = workspace[if packed { 1 } else { 0 }];
        let channels = lens.bias;
        let required =
            [lens.input, weight, lens.thresholds, lens.bias, lens.output, work, channels, channels, lens.output];
        let mut memory = Memory::new(&input.buffers, &required, input.seed);
        let epilogue = convrelu_epilogue {
            struct_size: size_of::<convrelu_epilogue>(),
            scale: memory.input(6),
            shift: memory.input(7),
            residual: memory.input(8),
            output_accumulation: input.accumulation[0],
            low: input.bounds[0],
            high: input.bounds[1],
            reserved: [0; 5],
        };
        // No pointers and lengths.
        let end = offset_of!(convrelu_epilogue, output_accumulation);
        let damage = damage_after(&input.epilogue_damage, end, size_of::<convrelu_epilogue>());
        let mut epilogue = Raw::new(epilogue, &damage, input.offsets[3].into());
        let ending = input.ended.then(|| epilogue.get());
        let sound = !packed || pack(input, plan, CONVRELU_FORWARD, &mut memory, 1, lens.weight);
        self.set_nan(&mut memory, 2);
        let args = convrelu_forward_args {
            struct_size: size_of::<convrelu_forward_args>(),
            input: memory.input(0),
            weight: memory.input(1),
            thresholds: memory.input(2),
            bias: memory.input(3),
            output: memory.output(4),
            workspace: memory.output(5),
            epilogue: if input.ended { epilogue.as_mut_ptr() } else { ptr::null() },
            parallel_for,
            context,
            weight_kind: input.weight_kind,
            threshold_kind: input.threshold_kind,
            threshold: input.threshold,
            reserved: [0; 5],
        };
        let end = offset_of!(convrelu_forward_args, weight_kind);
        let mut args = Raw::new(args, &self.damage(end, size_of::<convrelu_forward_args>()), input.offsets[2].into());
        let args = args.as_mut_ptr();
        let prior = memory.allocations[4].clone();
        let done = passes(input, &memory, &[4, 5], |error| unsafe { convrelu_forward(plan, args, error) });
        let Some(safe) = safe.filter(|_| done && sound && self.is_intact() && memory.is_own(4)) else { return };
        let read = [0, 1, 2, 3, 6, 7, 8];
        // What the call is not given, it has not accepted.
        let given = |index: usize| match index {
            2 => per_tap,
            6.. => input.ended,
            _ => true,
        };
        let read = read.map(|index| if given(index) { memory.values(index) } else { vec![] });
        let [x, w, theta, b, scale, shift, residual] = &read;
        let optional = |index: usize, values| (!memory.given[index].0.is_null()).then_some(values);
        let (bias, plain) = (optional(3, &b[..]), vec![0.5; lens.weight]);
        let mut memory_of_weight = vec![0.0; safe.packed_len()];
        let mut expected = prior.to_vec();
        let workspace = &mut vec![0.0; work];
        let packed_weight;
        match safe {
            Safe::Plain(safe) => {
                let weight = if packed {
                    packed_weight = safe.pack_weight(&plain, &mut memory_of_weight).expect("the right length");
                    Weight::Packed(&packed_weight)
                } else {
                    Weight::Plain(w)
                };
                let thresholds = if per_tap { Thresholds::PerTap(theta) } else { self.uniform() };
                let mut operands = Forward::new(x, weight, thresholds);
                operands.bias = bias;
                operands.epilogue = ending.map(|ending| {
                    let mut epilogue = Epilogue::new().clamp(ending.low, ending.high);
                    epilogue.scale = optional(6, &scale[..]);
                    epilogue.shift = optional(7, &shift[..]);
                    epilogue.residual = match ending.output_accumulation {
                        CONVRELU_ADD => Some(Residual::Output),
                        _ => optional(8, &residual[..]).map(Residual::Tensor),
                    };
                    epilogue
                });
                safe.forward(operands, &mut expected, workspace, &Serial)
            }
            Safe::Transposed(safe) => {
                let weight = if packed {
                    packed_weight = safe.pack_weight(&plain, &mut memory_of_weight).expect("the right length");
                    Weight::Packed(&packed_weight)
                } else {
                    Weight::Plain(w)
                };
                let mut operands = transposed::Forward::new(x, weight);
                operands.bias = bias;
                safe.forward(operands, &mut expected, workspace, &Serial)
            }
        }
        .expect("what the C interface accepts");
        same(&memory.values(4), &expected, "output");
    }

    fn backward_input(&self) {
        let Self { input, plan, lens, workspace, safe, packed, per_tap, accumulation, parallel_for, context } = *self;
        let weight = if packed { lens.packed_weight_transposed } else { lens.weight };
        let work = workspace[if packed { 3 } else { 2 }];
        let required = [lens.input, weight, lens.thresholds, lens.output, lens.input, self.grad_thresholds(), work];
        let mut memory = Memory::new(&input.buffers, &required, input.seed);
        if matches!(safe, Some(Safe::Transposed(_))) && input.seed % 8 > 0 {
            // There is no such gradient.
            memory.given[5] = (ptr::null_mut(), 0);
        }
        let sound = !packed || pack(input, plan, CONVRELU_BACKWARD_INPUT, &mut memory, 1, lens.weight);
        self.set_nan(&mut memory, 2);
        let args = convrelu_backward_input_args {
            struct_size: size_of::<convrelu_backward_input_args>(),
            input: memory.input(0),
            weight: memory.input(1),
            thresholds: memory.input(2),
            grad_output: memory.input(3),
            grad_input: memory.output(4),
            grad_thresholds: memory.output(5),
            workspace: memory.output(6),
            parallel_for,
            context,
            weight_kind: input.weight_kind,
            threshold_kind: input.threshold_kind,
            threshold: input.threshold,
            grad_input_accumulation: input.accumulation[0],
            grad_thresholds_accumulation: input.accumulation[1],
            reserved: [0; 5],
        };
        let end = offset_of!(convrelu_backward_input_args, weight_kind);
        let mut args =
            Raw::new(args, &self.damage(end, size_of::<convrelu_backward_input_args>()), input.offsets[2].into());
        let args = args.as_mut_ptr();
        let mut expected = [4, 5].map(|index| memory.allocations[index].to_vec());
        let given = [4, 5].map(|index| !memory.given[index].0.is_null());
        let own = [4, 5].iter().all(|&index| memory.given[index].0.is_null() || memory.is_own(index));
        let done = passes(input, &memory, &[4, 5, 6], |error| unsafe { convrelu_backward_input(plan, args, error) });
        if let Some(safe) = safe.filter(|_| done && sound && self.is_intact() && !packed && own) {
            let read = [0, 1, 2, 3].map(|index| if index == 2 && !per_tap { vec![] } else { memory.values(index) });
            let [first, second] = &mut expected;
            let first = given[0].then(|| Gradient::new(first, accumulation[0]));
            let workspace = &mut vec![0.0; work];
            match safe {
                Safe::Plain(safe) => {
                    let thresholds = if per_tap { Thresholds::PerTap(&read[2]) } else { self.uniform() };
                    let mut operands = BackwardInput::new(&read[0], Weight::Plain(&read[1]), thresholds, &read[3]);
                    // Null and no elements are all of an empty batch.
                    let (data, len) = memory.given[0];
                    operands.input = operands.input.filter(|_| !data.is_null() || len == 0 && lens.input == 0);
                    let mut gradients = InputGradients::new();
                    gradients.grad_input = first;
                    gradients.grad_thresholds = given[1].then(|| Gradient::new(second, accumulation[1]));
                    safe.backward_input(operands, gradients, workspace, &Serial)
                }
                Safe::Transposed(safe) => {
                    let operands = transposed::BackwardInput::new(Weight::Plain(&read[1]), &read[3]);
                    first.map_or(Ok(()), |first| safe.backward_input(operands, first, workspace, &Serial))
                }
            }
            .expect("what the C interface accepts");
            for (which, name) in ["grad_input", "grad_thresholds"].iter().enumerate().filter(|(i, _)| given[*i]) {
                same(&memory.values(4 + which), &expected[which], name);
            }
        }
    }

    fn backward_weight(&self) {
        let Self { input, plan, lens, workspace, safe, per_tap, accumulation, parallel_for, context, .. } = *self;
        let work = workspace[4];
        let required = [lens.input, lens.thresholds, lens.output, lens.weight, lens.bias, work];
        let mut memory = Memory::new(&input.buffers, &required, input.seed);
        self.set_nan(&mut memory, 1);
        let args = convrelu_backward_weight_args {
            struct_size: size_of::<convrelu_backward_weight_args>(),
            input: memory.input(0),
            thresholds: memory.input(1),
            grad_output: memory.input(2),
            grad_weight: memory.output(3),
            grad_bias: memory.output(4),
            workspace: memory.output(5),
            parallel_for,
            context,
            threshold_kind: input.threshold_kind,
            threshold: input.threshold,
            grad_weight_accumulation: input.accumulation[0],
            grad_bias_accumulation: input.accumulation[1],
            reserved: [0; 4],
        };
        let end = offset_of!(convrelu_backward_weight_args, threshold_kind);
        let mut args =
            Raw::new(args, &self.damage(end, size_of::<convrelu_backward_weight_args>()), input.offsets[2].into());
        let args = args.as_mut_ptr();
        let mut expected = [3, 4].map(|index| memory.allocations[index].to_vec());
        let given = [3, 4].map(|index| !memory.given[index].0.is_null());
        let own = [3, 4].iter().all(|&index| memory.given[index].0.is_null() || memory.is_own(index));
        let done = passes(input, &memory, &[3, 4, 5], |error| unsafe { convrelu_backward_weight(plan, args, error) });
        if let Some(safe) = safe.filter(|_| done && self.is_intact() && own) {
            let read = [0, 1, 2].map(|index| if index == 1 && !per_tap { vec![] } else { memory.values(index) });
            let [first, second] = &mut expected;
            let mut gradients = WeightGradients::new();
            gradients.grad_weight = given[0].then(|| Gradient::new(first, accumulation[0]));
            gradients.grad_bias = given[1].then(|| Gradient::new(second, accumulation[1]));
            let workspace = &mut vec![0.0; work];
            match safe {
                Safe::Plain(safe) => {
                    let thresholds = if per_tap { Thresholds::PerTap(&read[1]) } else { self.uniform() };
                    let operands = BackwardWeight::new(&read[0], thresholds, &read[2]);
                    safe.backward_weight(operands, gradients, workspace, &Serial)
                }
                Safe::Transposed(safe) => {
                    let operands = transposed::BackwardWeight::new(&read[0], &read[2]);
                    safe.backward_weight(operands, gradients, workspace, &Serial)
                }
            }
            .expect("what the C interface accepts");
            for (which, name) in ["grad_weight", "grad_bias"].iter().enumerate().filter(|(i, _)| given[*i]) {
                same(&memory.values(3 + which), &expected[which], name);
            }
        }
    }

    fn adarelu_forward(&self) {
        let Self { input, .. } = *self;
        let required = [60, 12, 60];
        let mut memory = Memory::new(&input.buffers, &required, input.seed);
        self.set_nan(&mut memory, 1);
        let before = memory.bits();
        let (x, theta, y) = (memory.input(0), memory.input(1), memory.output(2));
        if !reported(input, |error| unsafe { convrelu_adarelu_forward(x, theta, input.inner, y, error) }) {
            assert_eq!(memory.bits(), before, "a call that was refused has written");
        } else {
            let (x, theta) = (memory.values(0), memory.values(1));
            let mut expected = vec![0.0; x.len()];
            adarelu::forward(&x, &theta, input.inner, &mut expected).expect("what the C interface accepts");
            same(&memory.values(2)[..x.len()], &expected, "y");
        }
    }

    fn adarelu_backward(&self) {
        let Self { input, .. } = *self;
        let required = [60, 12, 60, 60, 12];
        let mut memory = Memory::new(&input.buffers, &required, input.seed);
        self.set_nan(&mut memory, 1);
        let args = convrelu_adarelu_backward_args {
            struct_size: size_of::<convrelu_adarelu_backward_args>(),
            input: memory.input(0),
            thresholds: memory.input(1),
            grad_output: memory.input(2),
            grad_input: memory.output(3),
            grad_thresholds: memory.output(4),
            inner: input.inner,
            accumulation: input.accumulation[0],
            reserved: [0; 5],
        };
        let end = offset_of!(convrelu_adarelu_backward_args, inner);
        let mut args =
            Raw::new(args, &self.damage(end, size_of::<convrelu_adarelu_backward_args>()), input.offsets[2].into());
        let (before, args) = (memory.bits(), args.as_mut_ptr());
        if !reported(input, |error| unsafe { convrelu_adarelu_backward(args, error) }) {
            assert_eq!(memory.bits(), before, "a call that was refused has written");
        }
    }

    fn pack(&self) {
        let Self { input, plan, lens, .. } = *self;
        let required = [lens.weight, if input.pass <= 1 { lens.packed_weight } else { lens.packed_weight_transposed }];
        let memory = Memory::new(&input.buffers, &required, input.seed);
        let before = memory.bits();
        let (from, to) = (memory.input(0), memory.output(1));
        if !reported(input, |error| unsafe { convrelu_pack_weight(plan, input.pass, from, to, error) }) {
            assert_eq!(memory.bits(), before, "a call that was refused has written");
        } else {
            let packed = memory.input(1);
            let checked = unsafe { convrelu_check_packed_weight(plan, input.pass, packed, ptr::null_mut()) };
            assert_eq!(checked, convrelu_status::CONVRELU_OK);
        }
    }

    fn check_packed(&self) {
        let Self { input, plan, lens, .. } = *self;
        let required = [if input.pass <= 1 { lens.packed_weight } else { lens.packed_weight_transposed }];
        let mut memory = Memory::new(&input.buffers[..1], &required, input.seed);
        pack(input, plan, input.pass, &mut memory, 0, lens.weight);
        let packed = memory.input(0);
        reported(input, |error| unsafe { convrelu_check_packed_weight(plan, input.pass, packed, error) });
    }
}

/// The small functions, and errors of any bytes.
unsafe fn numbers(input: &Input, plan: *const convrelu_plan) {
    let mut number = [0x5555_5555; 4];
    let at = |index: usize, data: *mut u32| match input.offsets[index] % 8 {
        0..=3 => data,
        4 => ptr::null_mut(),
        _ => data.wrapping_byte_add(1),
    };
    let data = number.as_mut_ptr();
    if !reported(input, |error| unsafe { convrelu_version(at(0, data), at(1, data), at(2, data), error) }) {
        assert_eq!(number, [0x5555_5555; 4]);
    }
    reported(input, |error| unsafe { convrelu_abi(at(0, data), error) });
    reported(input, |error| unsafe { convrelu_isa_detect(at(0, data), error) });
    reported(input, |error| unsafe { convrelu_isa_available(input.isa, at(1, data), error) });
    reported(input, |error| unsafe { convrelu_plan_isa(plan, at(2, data), error) });

    let convrelu_desc { batch, in_channels: i, out_channels: o, size: [d, h, w], kernel: [kd, kh, kw], .. } =
        input.desc;
    let desc = input.desc;
    // SAFETY: as long as it says.
    unsafe {
        inits(input, desc, &mut |to, len, e| convrelu_conv1d_init(to, len, batch, i, o, w, kw, e));
        inits(input, desc, &mut |to, len, e| convrelu_conv2d_init(to, len, batch, i, o, h, w, kh, kw, e));
        inits(input, desc, &mut |to, len, e| convrelu_conv3d_init(to, len, batch, i, o, d, h, w, kd, kh, kw, e));
        inits(input, MaybeUninit::zeroed().assume_init(), &mut |to, len, e| convrelu_forward_args_init(to, len, e));
        let zeroed = MaybeUninit::zeroed().assume_init();
        inits(input, zeroed, &mut |to, len, e| convrelu_backward_input_args_init(to, len, e));
        let zeroed = MaybeUninit::zeroed().assume_init();
        inits(input, zeroed, &mut |to, len, e| convrelu_backward_weight_args_init(to, len, e));
        let zeroed = MaybeUninit::zeroed().assume_init();
        inits(input, zeroed, &mut |to, len, e| convrelu_epilogue_init(to, len, e));
    }

    // SAFETY: every byte pattern is a value.
    let error: convrelu_error = unsafe { ptr::from_ref(&input.error_bytes).cast::<convrelu_error>().read_unaligned() };
    let mut message = vec![0x55 as c_char; input.capacity.into()];
    unsafe { convrelu_error_message(&error, message.as_mut_ptr(), message.len(), ptr::null_mut()) };
}

/// An initialiser: the struct, its size, the error.
type Init<'a, T> = &'a mut dyn FnMut(*mut T, usize, *mut convrelu_error) -> convrelu_status;

/// Initialises a struct that lies anywhere, with its size or another one; where that is refused, nothing is written.
fn inits<T: Copy>(input: &Input, before: T, init: Init<'_, T>) {
    let bytes = |value: &T| {
        // SAFETY: initialised whole, and without padding.
        unsafe { std::slice::from_raw_parts(ptr::from_ref(value).cast::<u8>(), size_of::<T>()) }.to_vec()
    };
    let mut room = Raw::new(before, &input.desc_damage, input.offsets[0].into());
    let (before, to) = (bytes(&room.get()), room.as_mut_ptr());
    let size = if input.error_given.is_multiple_of(4) { input.inner } else { size_of::<T>() };
    if !reported(input, |error| init(to, size, error)) {
        assert_eq!(bytes(&room.get()), before, "an initialiser that was refused has written");
    }
}
