//! Plain convolutions of oneDNN, from tensors in our layouts.

mod ffi;
mod openmp;

use std::ffi::c_int;
use std::path::Path;
use std::ptr::null_mut;
use std::rc::Rc;

use convrelu::Layout;

use crate::buffer::Buffer;
use crate::notation::Problem;
use crate::operands::Operands;
use crate::pass::Pass;
use ffi::{ALLOCATE, ExecArg, Functions, Handle, arg, query};
pub(crate) use openmp::OpenMp;

/// How a convolution may lay out its tensors, and what is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// All as oneDNN likes it; reorders are left out.
    Any,
    /// Activations in the given plain layout; those of the formats below that is faster.
    Plain(Layout),
}

/// The formats behind [`Format::Plain`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// Reorders are not timed.
    Any,
    /// The primitive reads and writes the plain layout.
    Direct,
    /// Activations are reordered to what oneDNN likes, and back.
    Reordered,
}

/// A loaded library with its engine and stream.
pub(crate) struct Dnnl {
    functions: Functions,
    engine: Handle,
    stream: Handle,
}

/// The status of a call that must succeed.
fn check(status: c_int, what: &str) -> Result<(), String> {
    // dnnl_status_t: 1 out of memory, 2 invalid arguments, 3 unimplemented.
    if status == 0 { Ok(()) } else { Err(format!("oneDNN: {what} failed with status {status}")) }
}

impl Dnnl {
    pub(crate) fn load(path: &Path) -> Result<Rc<Self>, String> {
        let functions = Functions::load(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let (mut engine, mut stream) = (null_mut(), null_mut());
        // SAFETY: the pointers are where the results go.
        unsafe {
            check((functions.engine_create)(&mut engine, ffi::CPU, 0), "dnnl_engine_create")?;
            // 1: in order.
            check((functions.stream_create)(&mut stream, engine, 1), "dnnl_stream_create")?;
        }
        Ok(Rc::new(Self { functions, engine, stream }))
    }

    /// The pool of threads that the library computes with, if it is OpenMP's.
    pub(crate) fn openmp(&self) -> Option<OpenMp<'_>> {
        self.functions.openmp()
    }
}

/// A memory descriptor of our own.
struct Desc {
    dnnl: Rc<Dnnl>,
    handle: Handle,
}

impl Desc {
    fn any(dnnl: &Rc<Dnnl>, dims: &[i64]) -> Result<Self, String> {
        let mut handle = null_mut();
        // SAFETY: `dims` has as many elements as is said.
        let status = unsafe {
            (dnnl.functions.memory_desc_create_with_tag)(
                &mut handle,
                dims.len() as c_int,
                dims.as_ptr(),
                ffi::F32,
                ffi::FORMAT_ANY,
            )
        };
        check(status, "dnnl_memory_desc_create_with_tag")?;
        Ok(Self { dnnl: dnnl.clone(), handle })
    }

    fn strided(dnnl: &Rc<Dnnl>, dims: &[i64], strides: &[i64]) -> Result<Self, String> {
        assert_eq!(dims.len(), strides.len());
        let mut handle = null_mut();
        // SAFETY: `dims` and `strides` have as many elements as is said.
        let status = unsafe {
            (dnnl.functions.memory_desc_create_with_strides)(
                &mut handle,
                dims.len() as c_int,
                dims.as_ptr(),
                ffi::F32,
                strides.as_ptr(),
            )
        };
        check(status, "dnnl_memory_desc_create_with_strides")?;
        Ok(Self { dnnl: dnnl.clone(), handle })
    }
}

impl Drop for Desc {
    fn drop(&mut self) {
        // SAFETY: created by us, destroyed once.
        unsafe { (self.dnnl.functions.memory_desc_destroy)(self.handle) };
    }
}

/// Memory of a tensor: the library's own, or a buffer that lives as long.
struct Memory {
    dnnl: Rc<Dnnl>,
    handle: Handle,
    /// Keeps the buffer of a tensor of ours alive, at its address.
    buffer: Option<Buffer>,
}

impl Memory {
    fn new(dnnl: &Rc<Dnnl>, desc: Handle, mut buffer: Option<Buffer>) -> Result<Self, String> {
        let data = buffer.as_mut().map_or(ALLOCATE, |buffer| buffer.as_mut_ptr().cast());
        let mut handle = null_mut();
        // SAFETY: the descriptor is alive; a buffer has as many elements as the dense tensor that it describes.
        check(unsafe { (dnnl.functions.memory_create)(&mut handle, desc, dnnl.engine, data) }, "dnnl_memory_create")?;
        Ok(Self { dnnl: dnnl.clone(), handle, buffer })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: created by us, destroyed once.
        unsafe { (self.dnnl.functions.memory_destroy)(self.handle) };
    }
}

/// A primitive with its arguments.
struct Primitive {
    dnnl: Rc<Dnnl>,
    handle: Handle,
    arguments: Vec<ExecArg>,
}

impl Primitive {
    /// Consumes the descriptor.
    fn new(dnnl: &Rc<Dnnl>, desc: Handle, arguments: Vec<ExecArg>) -> Result<Self, String> {
        let mut handle = null_mut();
        // SAFETY: the descriptor is alive, and destroyed once.
        let status = unsafe {
            let status = (dnnl.functions.primitive_create)(&mut handle, desc);
            (dnnl.functions.primitive_desc_destroy)(desc);
            status
        };
        check(status, "dnnl_primitive_create")?;
        Ok(Self { dnnl: dnnl.clone(), handle, arguments })
    }

    fn reorder(dnnl: &Rc<Dnnl>, from: (Handle, &Memory), to: (Handle, &Memory)) -> Result<Self, String> {
        let mut desc = null_mut();
        // SAFETY: descriptors and engine are alive.
        let status = unsafe {
            (dnnl.functions.reorder_primitive_desc_create)(
                &mut desc,
                from.0,
                dnnl.engine,
                to.0,
                dnnl.engine,
                null_mut(),
            )
        };
        check(status, "dnnl_reorder_primitive_desc_create")?;
        let arguments =
            vec![ExecArg { arg: arg::SRC, memory: from.1.handle }, ExecArg { arg: arg::DST, memory: to.1.handle }];
        Self::new(dnnl, desc, arguments)
    }

    fn execute(&self) {
        // SAFETY: the primitive and its memories are alive: whoever runs it owns both.
        let status = unsafe {
            (self.dnnl.functions.primitive_execute)(
                self.handle,
                self.dnnl.stream,
                self.arguments.len() as c_int,
                self.arguments.as_ptr(),
            )
        };
        assert_eq!(status, 0, "dnnl_primitive_execute failed");
    }
}

impl Drop for Primitive {
    fn drop(&mut self) {
        // SAFETY: created by us, destroyed once.
        unsafe { (self.dnnl.functions.primitive_destroy)(self.handle) };
    }
}

/// One pass of one convolution, ready to run.
pub(crate) struct Convolution {
    before: Vec<Primitive>,
    convolution: Primitive,
    /// Timed, or only for the comparison of results.
    after: Vec<Primitive>,
    after_is_timed: bool,
    dnnl: Rc<Dnnl>,
    /// Where the result arrives in our layout.
    result: usize,
    memories: Vec<Memory>,
}

impl Convolution {
    /// The fastest of the ways that a format allows.
    pub(crate) fn new(
        dnnl: &Rc<Dnnl>,
        problem: &Problem,
        pass: Pass,
        format: Format,
        operands: &Operands,
    ) -> Result<Self, String> {
        let build = |variant| Self::build(dnnl, problem, pass, variant, operands);
        if format == Format::Any {
            return build(Variant::Any);
        }
        let (direct, reordered) = (build(Variant::Direct), build(Variant::Reordered));
        match (direct, reordered) {
            (Ok(mut direct), Ok(mut reordered)) => {
                let time = |convolution: &mut Self| {
                    convolution.run();
                    let sample = |_| {
                        let start = std::time::Instant::now();
                        convolution.run();
                        start.elapsed()
                    };
                    (0..7).map(sample).min()
                };
                Ok(if time(&mut direct) <= time(&mut reordered) { direct } else { reordered })
            }
            (Ok(only), Err(_)) | (Err(_), Ok(only)) => Ok(only),
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// What is timed.
    pub(crate) fn run(&mut self) {
        self.before.iter().for_each(Primitive::execute);
        self.convolution.execute();
        if self.after_is_timed {
            self.after.iter().for_each(Primitive::execute);
        }
        // SAFETY: the stream is alive.
        let status = unsafe { (self.dnnl.functions.stream_wait)(self.dnnl.stream) };
        assert_eq!(status, 0, "dnnl_stream_wait failed");
    }

    /// The result of a run, in our layout.
    pub(crate) fn result(&mut self) -> Vec<f32> {
        self.run();
        self.after.iter().for_each(Primitive::execute);
        // SAFETY: the stream is alive.
        unsafe { (self.dnnl.functions.stream_wait)(self.dnnl.stream) };
        let Some(buffer) = &mut self.memories[self.result].buffer else { unreachable!("results have buffers") };
        let (data, len) = (std::hint::black_box(buffer.as_mut_ptr()), buffer.len());
        // SAFETY: the buffer, which the library has written through the same address.
        unsafe { std::slice::from_raw_parts(data, len) }.to_vec()
    }

    fn build(
        dnnl: &Rc<Dnnl>,
        problem: &Problem,
        pass: Pass,
        variant: Variant,
        operands: &Operands,
    ) -> Result<Self, String> {
        let shapes = Shapes::new(problem, operands.layout);
        let plain = |shape: &Shape| Desc::strided(dnnl, &shape.dims, &shape.strides);
        let wanted = |shape: &Shape, activation: bool| {
            if activation && variant == Variant::Direct { plain(shape) } else { Desc::any(dnnl, &shape.dims) }
        };
        let (src, weights, dst) =
            (wanted(&shapes.src, true)?, wanted(&shapes.weights, false)?, wanted(&shapes.dst, true)?);
        let bias = Desc::strided(dnnl, &[problem.out_channels as i64], &[1])?;
        let [strides, dilates, before, after] = shapes.geometry;
        let mut hint = null_mut();
        // SAFETY: descriptors are alive, and the geometry has an element per axis.
        let status = unsafe {
            (dnnl.functions.convolution_forward_primitive_desc_create)(
                &mut hint,
                dnnl.engine,
                ffi::FORWARD_TRAINING,
                ffi::DIRECT,
                src.handle,
                weights.handle,
                null_mut(),
                dst.handle,
                strides.as_ptr(),
                dilates.as_ptr(),
                before.as_ptr(),
                after.as_ptr(),
                null_mut(),
            )
        };
        check(status, "dnnl_convolution_forward_primitive_desc_create")?;
        let mut desc = null_mut();
        // SAFETY: as above; the hint is alive.
        let status = unsafe {
            match pass {
                Pass::Forward => {
                    desc = hint;
                    hint = null_mut();
                    0
                }
                Pass::BackwardInput => (dnnl.functions.convolution_backward_data_primitive_desc_create)(
                    &mut desc,
                    dnnl.engine,
                    ffi::DIRECT,
                    src.handle,
                    weights.handle,
                    dst.handle,
                    strides.as_ptr(),
                    dilates.as_ptr(),
                    before.as_ptr(),
                    after.as_ptr(),
                    hint,
                    null_mut(),
                ),
                Pass::BackwardWeight => (dnnl.functions.convolution_backward_weights_primitive_desc_create)(
                    &mut desc,
                    dnnl.engine,
                    ffi::DIRECT,
                    src.handle,
                    weights.handle,
                    bias.handle,
                    dst.handle,
                    strides.as_ptr(),
                    dilates.as_ptr(),
                    before.as_ptr(),
                    after.as_ptr(),
                    hint,
                    null_mut(),
                ),
            }
        };
        if !hint.is_null() {
            // SAFETY: created above, destroyed once.
            unsafe { (dnnl.functions.primitive_desc_destroy)(hint) };
        }
        check(status, "creating the backward primitive descriptor")?;

        let mut built = Builder { dnnl, desc, variant, memories: Vec::new(), arguments: Vec::new() };
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let mut once = Vec::new();
        let input = |data: &[f32]| Some(Buffer::of(data));
        let blank = |len: usize| Some(Buffer::zeros(len));
        let result = match pass {
            Pass::Forward => {
                built.input(
                    (arg::SRC, query::SRC),
                    &shapes.src,
                    input(&operands.input),
                    &mut before,
                    &mut once,
                    true,
                )?;
                built.input(
                    (arg::WEIGHTS, query::WEIGHTS),
                    &shapes.weights,
                    input(&operands.weight),
                    &mut before,
                    &mut once,
                    false,
                )?;
                built.output((arg::DST, query::DST), &shapes.dst, blank(operands.grad_output.len()), &mut after)?
            }
            Pass::BackwardInput => {
                built.input(
                    (arg::DIFF_DST, query::DIFF_DST),
                    &shapes.dst,
                    input(&operands.grad_output),
                    &mut before,
                    &mut once,
                    true,
                )?;
                built.input(
                    (arg::WEIGHTS, query::WEIGHTS),
                    &shapes.weights,
                    input(&operands.weight),
                    &mut before,
                    &mut once,
                    false,
                )?;
                built.output((arg::DIFF_SRC, query::DIFF_SRC), &shapes.src, blank(operands.input.len()), &mut after)?
            }
            Pass::BackwardWeight => {
                built.input(
                    (arg::SRC, query::SRC),
                    &shapes.src,
                    input(&operands.input),
                    &mut before,
                    &mut once,
                    true,
                )?;
                built.input(
                    (arg::DIFF_DST, query::DIFF_DST),
                    &shapes.dst,
                    input(&operands.grad_output),
                    &mut before,
                    &mut once,
                    true,
                )?;
                let memory = Memory::new(dnnl, bias.handle, blank(problem.out_channels))?;
                built.arguments.push(ExecArg { arg: arg::DIFF_BIAS, memory: memory.handle });
                built.memories.push(memory);
                built.output(
                    (arg::DIFF_WEIGHTS, query::DIFF_WEIGHTS),
                    &shapes.weights,
                    blank(operands.weight.len()),
                    &mut after,
                )?
            }
        };
        once.iter().for_each(Primitive::execute);
        let Builder { memories, arguments, .. } = built;
        Ok(Self {
            before,
            convolution: Primitive::new(dnnl, desc, arguments)?,
            after,
            after_is_timed: variant != Variant::Any,
            dnnl: dnnl.clone(),
            result,
            memories,
        })
    }
}

/// Memories and arguments of a convolution in the making.
struct Builder<'a> {
    dnnl: &'a Rc<Dnnl>,
    desc: Handle,
    variant: Variant,
    memories: Vec<Memory>,
    arguments: Vec<ExecArg>,
}

impl Builder<'_> {
    /// An input: reordered once, unless it is an activation whose reorder is timed.
    fn input(
        &mut self,
        (arg, query): (c_int, c_int),
        shape: &Shape,
        data: Option<Buffer>,
        timed: &mut Vec<Primitive>,
        once: &mut Vec<Primitive>,
        activation: bool,
    ) -> Result<(), String> {
        let (ours, own) = self.memories(query, shape, data)?;
        if let Some((reorder_desc, own)) = own {
            let plain = Desc::strided(self.dnnl, &shape.dims, &shape.strides)?;
            let reorder = Primitive::reorder(
                self.dnnl,
                (plain.handle, &self.memories[ours]),
                (reorder_desc, &self.memories[own]),
            )?;
            let list = if activation && self.variant != Variant::Any { timed } else { once };
            list.push(reorder);
            self.arguments.push(ExecArg { arg, memory: self.memories[own].handle });
        } else {
            self.arguments.push(ExecArg { arg, memory: self.memories[ours].handle });
        }
        Ok(())
    }

    /// The output: where it arrives in our layout.
    fn output(
        &mut self,
        (arg, query): (c_int, c_int),
        shape: &Shape,
        data: Option<Buffer>,
        after: &mut Vec<Primitive>,
    ) -> Result<usize, String> {
        let (ours, own) = self.memories(query, shape, data)?;
        if let Some((reorder_desc, own)) = own {
            let plain = Desc::strided(self.dnnl, &shape.dims, &shape.strides)?;
            after.push(Primitive::reorder(
                self.dnnl,
                (reorder_desc, &self.memories[own]),
                (plain.handle, &self.memories[ours]),
            )?);
            self.arguments.push(ExecArg { arg, memory: self.memories[own].handle });
        } else {
            self.arguments.push(ExecArg { arg, memory: self.memories[ours].handle });
        }
        Ok(ours)
    }

    /// The memory of a tensor in our layout and, where the primitive wants another, its descriptor and memory.
    fn memories(
        &mut self,
        query: c_int,
        shape: &Shape,
        data: Option<Buffer>,
    ) -> Result<(usize, Option<(Handle, usize)>), String> {
        let plain = Desc::strided(self.dnnl, &shape.dims, &shape.strides)?;
        let ours = self.memories.len();
        self.memories.push(Memory::new(self.dnnl, plain.handle, data)?);
        // SAFETY: the primitive descriptor is alive; what it returns lives as long, and is only used before the
        // primitive is made of it.
        let wanted = unsafe { (self.dnnl.functions.primitive_desc_query_md)(self.desc, query, 0) };
        // SAFETY: both are alive.
        if unsafe { (self.dnnl.functions.memory_desc_equal)(plain.handle, wanted) } != 0 {
            return Ok((ours, None));
        }
        self.memories.push(Memory::new(self.dnnl, wanted, None)?);
        Ok((ours, Some((wanted, ours + 1))))
    }
}

/// Extents and strides of a tensor in our layout, in oneDNN's order of axes.
struct Shape {
    dims: Vec<i64>,
    strides: Vec<i64>,
}

impl Shape {
    /// `outer` axes, channels, spatial axes; dense in our layout.
    fn new(outer: &[usize], channels: usize, spatial: &[usize], layout: Layout) -> Self {
        let mut inner: Vec<usize> = std::iter::once(channels).chain(spatial.iter().copied()).collect();
        let dims = outer.iter().chain(&inner).map(|&n| n as i64).collect();
        if layout == Layout::Nhwc {
            inner.rotate_left(1);
        }
        let memory_order: Vec<usize> = outer.iter().copied().chain(inner).collect();
        let mut strides = vec![1i64; memory_order.len()];
        for axis in (1..memory_order.len()).rev() {
            strides[axis - 1] = strides[axis] * memory_order[axis] as i64;
        }
        if layout == Layout::Nhwc {
            strides[outer.len()..].rotate_right(1);
        }
        Self { dims, strides }
    }
}

/// The tensors and the geometry of a problem, without its unused axes.
struct Shapes {
    src: Shape,
    weights: Shape,
    dst: Shape,
    /// Strides, dilations, padding before and after.
    geometry: [ffi::Dims; 4],
}

impl Shapes {
    fn new(problem: &Problem, layout: Layout) -> Self {
        let axes = &problem.axes[3 - problem.rank..];
        let of = |value: fn(&crate::notation::Axis) -> usize| axes.iter().map(value).collect::<Vec<_>>();
        let (input, kernel, output) = (of(|a| a.input), of(|a| a.kernel), of(|a| a.output));
        let (groups, group_in) = (problem.groups, problem.in_channels / problem.groups);
        let filters: &[usize] =
            if groups == 1 { &[problem.out_channels] } else { &[groups, problem.out_channels / groups] };
        let geometry = |value: fn(&crate::notation::Axis) -> i64| {
            let mut dims = [0; 12];
            dims.iter_mut().zip(axes).for_each(|(dim, axis)| *dim = value(axis));
            dims
        };
        Self {
            src: Shape::new(&[problem.batch], problem.in_channels, &input, layout),
            weights: Shape::new(filters, group_in, &kernel, layout),
            dst: Shape::new(&[problem.batch], problem.out_channels, &output, layout),
            geometry: [
                geometry(|a| a.stride as i64),
                geometry(|a| a.dilation as i64 - 1),
                geometry(|a| a.before as i64),
                geometry(|a| a.after as i64),
            ],
        }
    }
}
