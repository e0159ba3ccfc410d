/* The C interface of convrelu: convolutions with a trainable activation threshold per weight position.
 *
 * Made by cbindgen from src/capi; `.ci/capi` makes it again and fails where they differ.
 *
 *   convrelu_desc desc;  convrelu_plan plan;  convrelu_error error = {.struct_size = sizeof error};
 *   convrelu_conv2d_init(&desc, sizeof desc, 1, 3, 8, 32, 32, 3, 3, &error);
 *                                                                 batch, channels in and out, image, kernel; then set
 *                                                                 layout, stride, padding, ... where they differ
 *   convrelu_plan_init(&plan, sizeof plan, &desc, CONVRELU_ISA_AUTO, &error);
 *   convrelu_plan_lens, convrelu_workspace_len                    then allocate, or use static buffers
 *   convrelu_forward_args_init(&args, sizeof args, &error);       then set buffers and threshold_kind
 *   convrelu_forward(&plan, &args, &error);                       0 is success
 *
 * Transposed convolutions: desc.kind = CONVRELU_TRANSPOSED. An epilogue: convrelu_epilogue_init, then args.epilogue.
 *
 * tests/capi/layer.c in the repository is such a program.
 *
 * Every function returns a convrelu_status; convrelu_error_message makes a sentence of the error.
 *
 * What no function can check, the caller promises. The sections "Safety" cite it by name:
 *
 *   Struct pointer  null, misaligned, or to a struct that begins with its size and is as long as that says
 *                   (or to room for as many bytes as the argument struct_size says).
 *   Number pointer  null, misaligned, or to room for one value of its type.
 *   Buffer pointer  null, misaligned, or to as many elements as the length beside it says.
 *   Callback        a convrelu_parallel_for that is null, or that returns when all tasks have returned, calls none of
 *                   them afterwards, and hands on the task_context that it was given.
 *
 * During the call, nobody else writes what is read, and nobody else reads or writes what is written; what lies between the
 * pixels or images of a tensor with a pitch is part of its buffer.
 */

#ifndef CONVRELU_H
#define CONVRELU_H

#include <stddef.h>
#include <stdint.h>

/**
 * Major version of the library that this header belongs to.
 */
#define CONVRELU_VERSION_MAJOR 0

/**
 * Minor version.
 */
#define CONVRELU_VERSION_MINOR 2

/**
 * Patch version.
 */
#define CONVRELU_VERSION_PATCH 0

/**
 * Number of this interface. It goes up with every change that makes it necessary to compile programs again. See `convrelu_abi`.
 */
#define CONVRELU_ABI 2

/**
 * A convolution, plain or with thresholds.
 */
#define CONVRELU_CONVOLUTION 0

/**
 * A transposed convolution ("deconvolution"), as `ConvTranspose` of PyTorch and ONNX. It has no thresholds.
 */
#define CONVRELU_TRANSPOSED 1

/**
 * Channels before the spatial axes: `N C D H W`, weight `O I D H W` (transposed `I O D H W`), thresholds `I D H W`.
 */
#define CONVRELU_NCHW 0

/**
 * Channels last: `N D H W C`, weight `O D H W I` (transposed `I D H W O`), thresholds `D H W I`.
 */
#define CONVRELU_NHWC 1

/**
 * The best instruction set of this machine.
 */
#define CONVRELU_ISA_AUTO 0

/**
 * Plain code, on every target.
 */
#define CONVRELU_ISA_SCALAR 1

/**
 * AArch64 Advanced SIMD.
 */
#define CONVRELU_ISA_NEON 2

/**
 * x86-64 AVX2 with FMA.
 */
#define CONVRELU_ISA_AVX2 3

/**
 * x86-64 AVX-512 (F, BW, CD, DQ, VL).
 */
#define CONVRELU_ISA_AVX512 4

/**
 * WebAssembly's 128-bit SIMD.
 */
#define CONVRELU_ISA_SIMD128 5

/**
 * `convrelu_forward` with a plain weight.
 */
#define CONVRELU_FORWARD 0

/**
 * `convrelu_forward` with a packed weight.
 */
#define CONVRELU_FORWARD_PACKED 1

/**
 * `convrelu_backward_input` with a plain weight.
 */
#define CONVRELU_BACKWARD_INPUT 2

/**
 * `convrelu_backward_input` with a packed weight.
 */
#define CONVRELU_BACKWARD_INPUT_PACKED 3

/**
 * `convrelu_backward_weight`.
 */
#define CONVRELU_BACKWARD_WEIGHT 4

/**
 * A gradient, or the output, replaces what its buffer holds.
 */
#define CONVRELU_OVERWRITE 0

/**
 * A gradient, or the output, is added to what its buffer holds.
 */
#define CONVRELU_ADD 1

/**
 * The weight lies in the order of the layout.
 */
#define CONVRELU_WEIGHT_PLAIN 0

/**
 * The weight was packed by `convrelu_pack_weight` for the same layer, pass and instruction set.
 */
#define CONVRELU_WEIGHT_PACKED 1

/**
 * Not set. A call refuses it.
 */
#define CONVRELU_THRESHOLDS_UNSET 0

/**
 * One threshold per input channel and tap (eq. 8).
 */
#define CONVRELU_THRESHOLDS_PER_TAP 1

/**
 * θ = −∞ everywhere: a plain convolution.
 */
#define CONVRELU_THRESHOLDS_LINEAR 2

/**
 * θ = 0 everywhere: ReLU, then convolution.
 */
#define CONVRELU_THRESHOLDS_RELU 3

/**
 * The field `threshold` everywhere.
 */
#define CONVRELU_THRESHOLDS_UNIFORM 4

/**
 * Version of the standard's operators.
 */
#define OPSET 17

/**
 * What a function returns: 0 for success.
 */
enum convrelu_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Done.
   */
  CONVRELU_OK = 0,
  /**
   * A pointer that must not be null is null.
   */
  CONVRELU_NULL = 1,
  /**
   * A pointer is not aligned to its type.
   */
  CONVRELU_MISALIGNED = 2,
  /**
   * The size of a struct is not that of this version.
   */
  CONVRELU_STRUCT_SIZE = 3,
  /**
   * A number has no meaning where it stands (as a layout, an instruction set, a pass or a rank), or the kind of thresholds is
   * not set.
   */
  CONVRELU_INVALID_VALUE = 4,
  /**
   * A reserved field is not zero.
   */
  CONVRELU_RESERVED = 5,
  /**
   * A struct is not a plan that `convrelu_plan_init` has made.
   */
  CONVRELU_NOT_A_PLAN = 6,
  /**
   * A buffer that is written overlaps another.
   */
  CONVRELU_OVERLAP = 7,
  /**
   * A buffer does not hold packed weights, or its header is damaged.
   */
  CONVRELU_NOT_PACKED = 8,
  /**
   * Packed weights belong to another layer, pass or instruction set.
   */
  CONVRELU_PACKED_ELSEWHERE = 9,
  /**
   * A count or extent that must be at least 1 is 0.
   */
  CONVRELU_ZERO = 10,
  /**
   * The dilated kernel does not fit into the padded input.
   */
  CONVRELU_KERNEL_TOO_LARGE = 11,
  /**
   * A number of channels is not a multiple of the number of groups.
   */
  CONVRELU_CHANNELS_NOT_DIVISIBLE = 12,
  /**
   * A size does not fit the address space.
   */
  CONVRELU_OVERFLOW = 13,
  /**
   * A buffer holds fewer elements than the call needs.
   */
  CONVRELU_BUFFER_TOO_SHORT = 14,
  /**
   * A threshold is NaN. A uniform threshold is NaN until the caller sets it.
   */
  CONVRELU_NAN_THRESHOLD = 15,
  /**
   * The instruction set is not available here.
   */
  CONVRELU_ISA_UNAVAILABLE = 16,
  /**
   * The number of elements is not a multiple of what the AdaReLU thresholds cover, or they cover nothing.
   */
  CONVRELU_THRESHOLD_SHAPE = 17,
  /**
   * An error of a later version of the library.
   */
  CONVRELU_OTHER = 18,
  /**
   * A pitch is smaller than the pixel or the image that it must step over.
   */
  CONVRELU_PITCH_TOO_SMALL = 19,
  /**
   * `input` is null, and the thresholds are not uniformly −INFINITY.
   */
  CONVRELU_MISSING_INPUT = 20,
  /**
   * `parallel_for` did not run each task exactly once. The results of the call are undefined.
   */
  CONVRELU_EXECUTOR = 21,
  /**
   * The padding of a transposed convolution cuts off all of its output.
   */
  CONVRELU_PADDING_TOO_LARGE = 22,
  /**
   * The output padding of a transposed convolution is not less than the larger of stride and dilation.
   */
  CONVRELU_OUTPUT_PADDING_TOO_LARGE = 23,
  /**
   * A bound of an epilogue is NaN.
   */
  CONVRELU_NAN_BOUND = 24,
  /**
   * The lower bound of an epilogue is above the upper bound.
   */
  CONVRELU_BOUNDS_CROSSED = 25,
  /**
   * An argument does not apply: thresholds or an epilogue of a transposed convolution, output padding of a plain one, or a
   * residual where `output_accumulation` already says that the residual is what the output holds.
   */
  CONVRELU_NOT_APPLICABLE = 26,
  /**
   * The build of the library leaves this out: transposed convolutions without the feature `capi-transposed`, epilogues without
   * the feature `capi-epilogues`. The feature `capi` has both.
   */
  CONVRELU_LEFT_OUT = 27,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum convrelu_status convrelu_status;
#else
typedef uint32_t convrelu_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Why a call was refused, in numbers. `convrelu_error_message` makes a sentence of it.
 */
typedef struct {
  /**
   * `sizeof(convrelu_error)`, set by the caller.
   */
  size_t struct_size;
  /**
   * A `convrelu_status`.
   */
  uint32_t status;
  /**
   * The argument, for `convrelu_error_message`.
   */
  uint32_t argument;
  /**
   * Its value, and the numbers of the rule that it breaks.
   */
  size_t values[3];
  /**
   * Set to zero.
   */
  size_t reserved[2];
} convrelu_error;

/**
 * A convolution, or a transposed one. Initialise it with `convrelu_conv2d_init` or its siblings, then set the fields that differ
 * from the defaults.
 */
typedef struct {
  /**
   * `sizeof(convrelu_desc)`.
   */
  size_t struct_size;
  /**
   * Spatial axes, 1 to 3. In the arrays below, the first `rank` entries count. The others are ignored.
   */
  uint32_t rank;
  /**
   * `CONVRELU_NCHW` or `CONVRELU_NHWC`.
   */
  uint32_t layout;
  /**
   * Images; 0 is an empty batch.
   */
  size_t batch;
  /**
   * Input channels of all groups.
   */
  size_t in_channels;
  /**
   * Output channels of all groups.
   */
  size_t out_channels;
  /**
   * Number of groups. The output channels of a group read the input channels of the same group only.
   */
  size_t groups;
  /**
   * Input extents: width; height, width; or depth, height, width.
   */
  size_t size[3];
  /**
   * Kernel extents.
   */
  size_t kernel[3];
  /**
   * Steps between output positions. For a transposed convolution: steps between the outputs of neighbouring input positions.
   */
  size_t stride[3];
  /**
   * Distances of kernel taps; 1 is dense.
   */
  size_t dilation[3];
  /**
   * Zeros before each axis. For a transposed convolution: outputs that are cut off there.
   */
  size_t padding_before[3];
  /**
   * As `padding_before`, after each axis.
   */
  size_t padding_after[3];
  /**
   * For a transposed convolution: outputs that are appended to each axis, less than the larger of stride and dilation.
   * Otherwise zero.
   */
  size_t output_padding[3];
  /**
   * For an input that is a range of channels of a wider tensor: the elements from the first channel of a pixel to that of the
   * next pixel (channels last), or from image to image (channels first). 0 means that there are no gaps. The gradient of the
   * input has the same pitch. A call neither reads nor writes the gaps. Still no other buffer that the call writes may lie
   * there: that is a `CONVRELU_OVERLAP`.
   */
  size_t input_pitch;
  /**
   * As `input_pitch`, for the output and its gradient.
   */
  size_t output_pitch;
  /**
   * `CONVRELU_CONVOLUTION` or `CONVRELU_TRANSPOSED`.
   */
  uint32_t kind;
  /**
   * Must be zero.
   */
  uint32_t reserved[7];
} convrelu_desc;

/**
 * `len` floats to read. A call refuses fewer than it needs, and ignores more. Null with the length 0 is a buffer without
 * elements.
 */
typedef struct {
  /**
   * The first of them.
   */
  const float *data;
  /**
   * Elements.
   */
  size_t len;
} convrelu_input;

/**
 * What `convrelu_forward` does with its sums before it stores them: `y = clamp(scale · (Σ + bias) + shift + residual, low,
 * high)`. Initialise it with `convrelu_epilogue_init`, which makes an epilogue that changes nothing. Then set the parts that you
 * want.
 *
 * Each step is rounded, except that the product and the shift may be fused. The clamp keeps a NaN.
 */
typedef struct {
  /**
   * `sizeof(convrelu_epilogue)`.
   */
  size_t struct_size;
  /**
   * A factor per output channel, or null for none.
   */
  convrelu_input scale;
  /**
   * A summand per output channel, or null for none.
   */
  convrelu_input shift;
  /**
   * A summand for each output, or null for none. The tensor has the layout and the pitch of the output. Gaps are not read.
   */
  convrelu_input residual;
  /**
   * `CONVRELU_ADD` if the residual is what the output holds before the call. `residual` is null then.
   */
  uint32_t output_accumulation;
  /**
   * The least output, −INFINITY for none. 0 with an infinite `high` is ReLU.
   */
  float low;
  /**
   * The greatest output, INFINITY for none.
   */
  float high;
  /**
   * Must be zero.
   */
  uint32_t reserved[5];
} convrelu_epilogue;

/**
 * `len` floats to write. Null with the length 0 is a buffer without elements.
 */
typedef struct {
  /**
   * The first of them.
   */
  float *data;
  /**
   * Elements.
   */
  size_t len;
} convrelu_output;

/**
 * Runs the task `index` of a call, on any thread. A `convrelu_parallel_for` receives such a function and calls it.
 */
typedef void (*convrelu_task)(void *task_context, size_t index);

/**
 * A function of the caller that runs the tasks of a call on threads. It calls `task(task_context, 0)`, …, `task(task_context,
 * tasks − 1)`, each exactly once, in any order, and at the same time or not. It returns when all of them have returned. It must
 * not return before, and must not call `task` afterwards.
 *
 * `context` is the field beside it in the arguments. `task` never throws, and this function must not throw either. A call asks
 * once or several times, for at most as many tasks as its plan has threads. For a single task it does not ask.
 *
 * If a task runs twice or never, or if the function asks for a task that does not exist, the call returns `CONVRELU_EXECUTOR`.
 * The results are undefined then, but the call reads and writes nothing out of bounds.
 */
typedef void (*convrelu_parallel_for)(void *context, size_t tasks, convrelu_task task, void *task_context);

/**
 * Arguments of `convrelu_forward`. Initialise them with `convrelu_forward_args_init`.
 */
typedef struct {
  /**
   * `sizeof(convrelu_forward_args)`.
   */
  size_t struct_size;
  /**
   * `x`
   */
  convrelu_input input;
  /**
   * `w`
   */
  convrelu_input weight;
  /**
   * `θ`. Read only for `CONVRELU_THRESHOLDS_PER_TAP`.
   */
  convrelu_input thresholds;
  /**
   * `b`, or null for none.
   */
  convrelu_input bias;
  /**
   * `y`. The call overwrites it, but not the gaps that its pitch leaves.
   */
  convrelu_output output;
  /**
   * Scratch memory. It may hold anything.
   */
  convrelu_output workspace;
  /**
   * What changes the sums before they are stored, or null. A transposed convolution takes none.
   */
  const convrelu_epilogue *epilogue;
  /**
   * Runs tasks on threads. If null, they run one after another on the calling thread.
   */
  convrelu_parallel_for parallel_for;
  /**
   * The call passes it to `parallel_for`.
   */
  void *context;
  /**
   * `CONVRELU_WEIGHT_…`
   */
  uint32_t weight_kind;
  /**
   * `CONVRELU_THRESHOLDS_…`. For a transposed convolution: unset or `_LINEAR`.
   */
  uint32_t threshold_kind;
  /**
   * The threshold for `CONVRELU_THRESHOLDS_UNIFORM`. Otherwise ignored.
   */
  float threshold;
  /**
   * Must be zero.
   */
  uint32_t reserved[5];
} convrelu_forward_args;

/**
 * Arguments of `convrelu_backward_input`. Initialise them with `convrelu_backward_input_args_init`.
 */
typedef struct {
  /**
   * `sizeof(convrelu_backward_input_args)`.
   */
  size_t struct_size;
  /**
   * `x`. It may be null for `CONVRELU_THRESHOLDS_LINEAR` and for a transposed convolution, where the call does not read it.
   */
  convrelu_input input;
  /**
   * `w`
   */
  convrelu_input weight;
  /**
   * `θ`. Read only for `CONVRELU_THRESHOLDS_PER_TAP`.
   */
  convrelu_input thresholds;
  /**
   * `∂E/∂y`
   */
  convrelu_input grad_output;
  /**
   * `∂E/∂x`, or null to leave it out.
   */
  convrelu_output grad_input;
  /**
   * `∂E/∂θ`, or null to leave it out. Without `CONVRELU_THRESHOLDS_PER_TAP` it has one element. Null for a transposed
   * convolution.
   */
  convrelu_output grad_thresholds;
  /**
   * Scratch memory. It may hold anything.
   */
  convrelu_output workspace;
  /**
   * Runs tasks on threads. If null, they run one after another on the calling thread.
   */
  convrelu_parallel_for parallel_for;
  /**
   * The call passes it to `parallel_for`.
   */
  void *context;
  /**
   * `CONVRELU_WEIGHT_…`
   */
  uint32_t weight_kind;
  /**
   * `CONVRELU_THRESHOLDS_…`. For a transposed convolution: unset or `_LINEAR`.
   */
  uint32_t threshold_kind;
  /**
   * The threshold for `CONVRELU_THRESHOLDS_UNIFORM`. Otherwise ignored.
   */
  float threshold;
  /**
   * `CONVRELU_OVERWRITE` or `CONVRELU_ADD`: whether the gradient replaces the values in `grad_input` or is added to them.
   */
  uint32_t grad_input_accumulation;
  /**
   * As `grad_input_accumulation`, for `grad_thresholds`.
   */
  uint32_t grad_thresholds_accumulation;
  /**
   * Must be zero.
   */
  uint32_t reserved[5];
} convrelu_backward_input_args;

/**
 * Arguments of `convrelu_backward_weight`. Initialise them with `convrelu_backward_weight_args_init`.
 */
typedef struct {
  /**
   * `sizeof(convrelu_backward_weight_args)`.
   */
  size_t struct_size;
  /**
   * `x`
   */
  convrelu_input input;
  /**
   * `θ`. Read only for `CONVRELU_THRESHOLDS_PER_TAP`.
   */
  convrelu_input thresholds;
  /**
   * `∂E/∂y`
   */
  convrelu_input grad_output;
  /**
   * `∂E/∂w`, or null to leave it out.
   */
  convrelu_output grad_weight;
  /**
   * `∂E/∂b`, or null to leave it out.
   */
  convrelu_output grad_bias;
  /**
   * Scratch memory. It may hold anything.
   */
  convrelu_output workspace;
  /**
   * Runs tasks on threads. If null, they run one after another on the calling thread.
   */
  convrelu_parallel_for parallel_for;
  /**
   * The call passes it to `parallel_for`.
   */
  void *context;
  /**
   * `CONVRELU_THRESHOLDS_…`. For a transposed convolution: unset or `_LINEAR`.
   */
  uint32_t threshold_kind;
  /**
   * The threshold for `CONVRELU_THRESHOLDS_UNIFORM`. Otherwise ignored.
   */
  float threshold;
  /**
   * `CONVRELU_OVERWRITE` or `CONVRELU_ADD`: whether the gradient replaces the values in `grad_weight` or is added to them.
   */
  uint32_t grad_weight_accumulation;
  /**
   * As `grad_weight_accumulation`, for `grad_bias`.
   */
  uint32_t grad_bias_accumulation;
  /**
   * Must be zero.
   */
  uint32_t reserved[4];
} convrelu_backward_weight_args;

/**
 * A planned layer. `convrelu_plan_init` makes it. Read it only through functions.
 */
typedef struct {
  /**
   * `sizeof(convrelu_plan)`.
   */
  size_t struct_size;
  /**
   * Says that the struct is a plan.
   */
  uint32_t magic;
  /**
   * The instruction set that was chosen, not `CONVRELU_ISA_AUTO`.
   */
  uint32_t isa;
  /**
   * The most tasks per call.
   */
  size_t threads;
  /**
   * The layer.
   */
  convrelu_desc desc;
  /**
   * Must be zero.
   */
  size_t reserved[4];
} convrelu_plan;

/**
 * Lengths of a layer's tensors, in elements. Those of input and output count from the first to the last element, including the
 * gaps that the pitches leave.
 */
typedef struct {
  /**
   * `sizeof(convrelu_lens)`, set by the caller.
   */
  size_t struct_size;
  /**
   * Input, and its gradient, gaps included.
   */
  size_t input;
  /**
   * Output, and its gradient, gaps included.
   */
  size_t output;
  /**
   * Plain weight, and its gradient.
   */
  size_t weight;
  /**
   * Thresholds, and their gradient. 0 for a transposed convolution. (The gradient of a uniform threshold has one element.)
   */
  size_t thresholds;
  /**
   * Bias, and its gradient.
   */
  size_t bias;
  /**
   * Weight packed for the forward pass.
   */
  size_t packed_weight;
  /**
   * Weight packed for the backward pass of the input.
   */
  size_t packed_weight_transposed;
  /**
   * Output extents `depth, height, width`; 1 beyond the rank.
   */
  size_t output_size[3];
  /**
   * Set to zero.
   */
  size_t reserved[4];
} convrelu_lens;

/**
 * Arguments of `convrelu_adarelu_backward`.
 */
typedef struct {
  /**
   * `sizeof(convrelu_adarelu_backward_args)`.
   */
  size_t struct_size;
  /**
   * `x`
   */
  convrelu_input input;
  /**
   * `θ`. Each threshold covers `inner` consecutive elements, and the thresholds repeat over the tensor.
   */
  convrelu_input thresholds;
  /**
   * `∂E/∂y`, at least as long as the input.
   */
  convrelu_input grad_output;
  /**
   * `∂E/∂x`, at least as long as the input.
   */
  convrelu_output grad_input;
  /**
   * `∂E/∂θ`, at least as long as the thresholds.
   */
  convrelu_output grad_thresholds;
  /**
   * Elements that share one threshold in a row.
   */
  size_t inner;
  /**
   * `CONVRELU_OVERWRITE` or `CONVRELU_ADD`.
   */
  uint32_t accumulation;
  /**
   * Must be zero.
   */
  uint32_t reserved[5];
} convrelu_adarelu_backward_args;



#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Writes major, minor and patch version of the library that was loaded.
 *
 * # Safety
 *
 * `error` is a **Struct pointer**, the others are **Number pointers**.
 */
convrelu_status convrelu_version(uint32_t *major, uint32_t *minor, uint32_t *patch, convrelu_error *error);

/**
 * Writes the number of the interface of the library that was loaded. A program can use the library if the number is the
 * `CONVRELU_ABI` of the header that the program was compiled with, and if the library is not older than that header.
 *
 * # Safety
 *
 * `error` is a **Struct pointer**, `abi` a **Number pointer**.
 */
convrelu_status convrelu_abi(uint32_t *abi,
                             convrelu_error *error);

/**
 * The best instruction set of this machine, a `CONVRELU_ISA_…`.
 *
 * # Safety
 *
 * `error` is a **Struct pointer**, `isa` a **Number pointer**.
 */
convrelu_status convrelu_isa_detect(uint32_t *isa, convrelu_error *error);

/**
 * Whether (1 or 0) kernels of an instruction set can run here.
 *
 * # Safety
 *
 * `error` is a **Struct pointer**, `available` a **Number pointer**.
 */
convrelu_status convrelu_isa_available(uint32_t isa, uint32_t *available, convrelu_error *error);

/**
 * Fills the descriptor of a 1D layer: a convolution with stride, dilation and groups 1, padding 0, channels first, and tensors
 * without gaps. Set other values afterwards, such as the kind `CONVRELU_TRANSPOSED`. `convrelu_plan_init` checks all of them.
 *
 * `struct_size` is `sizeof(convrelu_desc)`.
 *
 * # Safety
 *
 * `desc` and `error` are **Struct pointers**.
 */
convrelu_status convrelu_conv1d_init(convrelu_desc *desc,
                                     size_t struct_size,
                                     size_t batch,
                                     size_t in_channels,
                                     size_t out_channels,
                                     size_t size,
                                     size_t kernel,
                                     convrelu_error *error);

/**
 * As `convrelu_conv1d_init`, for a 2D layer.
 *
 * # Safety
 *
 * `desc` and `error` are **Struct pointers**.
 */
convrelu_status convrelu_conv2d_init(convrelu_desc *desc,
                                     size_t struct_size,
                                     size_t batch,
                                     size_t in_channels,
                                     size_t out_channels,
                                     size_t height,
                                     size_t width,
                                     size_t kernel_height,
                                     size_t kernel_width,
                                     convrelu_error *error);

/**
 * As `convrelu_conv1d_init`, for a 3D layer.
 *
 * # Safety
 *
 * `desc` and `error` are **Struct pointers**.
 */
convrelu_status convrelu_conv3d_init(convrelu_desc *desc,
                                     size_t struct_size,
                                     size_t batch,
                                     size_t in_channels,
                                     size_t out_channels,
                                     size_t depth,
                                     size_t height,
                                     size_t width,
                                     size_t kernel_depth,
                                     size_t kernel_height,
                                     size_t kernel_width,
                                     convrelu_error *error);

/**
 * Fills an epilogue that changes nothing: no buffers, and bounds that are infinite.
 *
 * `struct_size` is `sizeof(convrelu_epilogue)`.
 *
 * # Safety
 *
 * `epilogue` and `error` are **Struct pointers**.
 */
convrelu_status convrelu_epilogue_init(convrelu_epilogue *epilogue,
                                       size_t struct_size,
                                       convrelu_error *error);

/**
 * Fills the arguments of `convrelu_forward` with zeros and null pointers, and `threshold` with NaN. A call refuses the kind of
 * thresholds 0 (`CONVRELU_THRESHOLDS_UNSET`) and the threshold NaN, so that nobody forgets to set them.
 *
 * `struct_size` is `sizeof(convrelu_forward_args)`.
 *
 * # Safety
 *
 * `args` and `error` are **Struct pointers**.
 */
convrelu_status convrelu_forward_args_init(convrelu_forward_args *args,
                                           size_t struct_size,
                                           convrelu_error *error);

/**
 * As `convrelu_forward_args_init`, for `convrelu_backward_input`. Both gradients are left out. One that is set replaces what its
 * buffer holds.
 *
 * # Safety
 *
 * `args` and `error` are **Struct pointers**.
 */
convrelu_status convrelu_backward_input_args_init(convrelu_backward_input_args *args,
                                                  size_t struct_size,
                                                  convrelu_error *error);

/**
 * As `convrelu_forward_args_init`, for `convrelu_backward_weight`. Both gradients are left out. One that is set replaces what
 * its buffer holds.
 *
 * # Safety
 *
 * `args` and `error` are **Struct pointers**.
 */
convrelu_status convrelu_backward_weight_args_init(convrelu_backward_weight_args *args,
                                                   size_t struct_size,
                                                   convrelu_error *error);

/**
 * Plans a layer for an instruction set (`CONVRELU_ISA_AUTO`: the best of this machine) and one thread.
 *
 * `struct_size` is `sizeof(convrelu_plan)`. You may copy and move the plan, because it owns nothing.
 *
 * # Safety
 *
 * `plan`, `desc` and `error` are **Struct pointers**.
 */
convrelu_status convrelu_plan_init(convrelu_plan *plan,
                                   size_t struct_size,
                                   const convrelu_desc *desc,
                                   uint32_t isa,
                                   convrelu_error *error);

/**
 * Lets calls split into at most `threads` tasks (0 counts as 1). The `parallel_for` of their arguments spreads them over
 * threads. A call makes fewer tasks where more would not pay. The number does not change results, but it changes the lengths of
 * workspaces.
 *
 * # Safety
 *
 * `plan` and `error` are **Struct pointers**.
 */
convrelu_status convrelu_plan_set_threads(convrelu_plan *plan,
                                          size_t threads,
                                          convrelu_error *error);

/**
 * The instruction set of a plan, a `CONVRELU_ISA_…`.
 *
 * # Safety
 *
 * `plan` and `error` are **Struct pointers**, `isa` a **Number pointer**.
 */
convrelu_status convrelu_plan_isa(const convrelu_plan *plan, uint32_t *isa, convrelu_error *error);

/**
 * Lengths of all tensors of a plan's layer, gaps included.
 *
 * # Safety
 *
 * `plan`, `lens` and `error` are **Struct pointers**.
 */
convrelu_status convrelu_plan_lens(const convrelu_plan *plan, convrelu_lens *lens, convrelu_error *error);

/**
 * Elements of workspace that a pass (a `CONVRELU_FORWARD…` or `CONVRELU_BACKWARD_…`) needs.
 *
 * # Safety
 *
 * `plan` and `error` are **Struct pointers**, `len` a **Number pointer**.
 */
convrelu_status convrelu_workspace_len(const convrelu_plan *plan,
                                       uint32_t pass,
                                       size_t *len,
                                       convrelu_error *error);

/**
 * Packs a weight for many calls of `convrelu_forward` (`CONVRELU_FORWARD`) or `convrelu_backward_input`
 * (`CONVRELU_BACKWARD_INPUT`). A header names the layer, the pass, the instruction set and the version.
 *
 * `buffer` holds at least `convrelu_lens.packed_weight` or `packed_weight_transposed` elements. You may move them. Plans of the
 * same layer can use them for any batch, and for any image size with which they read weights in the same order; other plans
 * refuse them.
 *
 * # Safety
 *
 * `plan` and `error` are **Struct pointers**, `weight` and `buffer` **Buffer pointers**.
 */
convrelu_status convrelu_pack_weight(const convrelu_plan *plan,
                                     uint32_t pass,
                                     convrelu_input weight,
                                     convrelu_output buffer,
                                     convrelu_error *error);

/**
 * Checks that a buffer holds the weights that `convrelu_pack_weight` packed for this plan and pass. It looks at every element.
 * The calls that use the weights check only the header.
 *
 * # Safety
 *
 * `plan` and `error` are **Struct pointers**, `buffer` is a **Buffer pointer**.
 */
convrelu_status convrelu_check_packed_weight(const convrelu_plan *plan,
                                             uint32_t pass,
                                             convrelu_input buffer,
                                             convrelu_error *error);

/**
 * Forward pass (eq. 8 with bias): see `ConvRelu::forward`, and `ConvTranspose::forward` for a transposed convolution.
 *
 * # Safety
 *
 * `plan`, `args` and `error` are **Struct pointers**. In `args`, `epilogue` is a **Struct pointer**; buffers, those of the
 * epilogue too, are **Buffer pointers**; `parallel_for` with `context` is a **Callback**.
 */
convrelu_status convrelu_forward(const convrelu_plan *plan,
                                 const convrelu_forward_args *args,
                                 convrelu_error *error);

/**
 * Gradients of the input and of the thresholds (eq. 5 and 6): those whose buffers are not null. See `ConvRelu::backward_input`,
 * and `ConvTranspose::backward_input` for a transposed convolution.
 *
 * # Safety
 *
 * As for `convrelu_forward`.
 */
convrelu_status convrelu_backward_input(const convrelu_plan *plan,
                                        const convrelu_backward_input_args *args,
                                        convrelu_error *error);

/**
 * Gradients of the weight and of the bias: those whose buffers are not null. See `ConvRelu::backward_weight`, and
 * `ConvTranspose::backward_weight` for a transposed convolution.
 *
 * # Safety
 *
 * As for `convrelu_forward`.
 */
convrelu_status convrelu_backward_weight(const convrelu_plan *plan,
                                         const convrelu_backward_weight_args *args,
                                         convrelu_error *error);

/**
 * `y = x` if `x > θ`, else `θ` (eq. 4), for each element. Each threshold covers `inner` elements in a row: see
 * `adarelu::forward`.
 *
 * # Safety
 *
 * `error` is a **Struct pointer**, buffers are **Buffer pointers**.
 */
convrelu_status convrelu_adarelu_forward(convrelu_input x,
                                         convrelu_input thresholds,
                                         size_t inner,
                                         convrelu_output y,
                                         convrelu_error *error);

/**
 * Gradients of AdaReLU's input and thresholds (eq. 5 and 6): see `adarelu::backward`.
 *
 * # Safety
 *
 * `args` and `error` are **Struct pointers**. In `args`, buffers are **Buffer pointers**.
 */
convrelu_status convrelu_adarelu_backward(const convrelu_adarelu_backward_args *args, convrelu_error *error);

/**
 * Writes one line about `error` to the `capacity` bytes at `message`: the argument, its value, and the rule it breaks. A line
 * that does not fit is cut. A zero byte always ends it.
 *
 * `len`, which may be null, receives the length of the whole line without that byte.
 *
 * # Safety
 *
 * `error` is a **Struct pointer**, `len` a **Number pointer**, `message` with `capacity` a **Buffer pointer** of bytes.
 */
convrelu_status convrelu_error_message(const convrelu_error *error,
                                       char *message,
                                       size_t capacity,
                                       size_t *len);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CONVRELU_H */
