#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "convrelu.h"

static convrelu_error error = {.struct_size = sizeof(convrelu_error)};

/* Every call says what is wrong with it. */
static void check(convrelu_status status) {
    char message[200];
    if (status == CONVRELU_OK) return;
    convrelu_error_message(&error, message, sizeof message, NULL);
    fprintf(stderr, "convrelu: %s\n", message);
    exit(1);
}

static float *floats(size_t len, float value) {
    float *values = malloc((len + 1) * sizeof *values);
    if (values == NULL) exit(1);
    for (size_t i = 0; i < len; i++) values[i] = value;
    return values;
}

int main(void) {
    /* One image of 8×8 pixels, 3 → 4 channels, 3×3 taps. What is not said is 1 (stride, dilation, groups) or 0 (padding). */
    convrelu_desc desc;
    check(convrelu_conv2d_init(&desc, sizeof desc, 1, 3, 4, 8, 8, 3, 3, &error));
    desc.layout = CONVRELU_NHWC; /* Channels last: input and output H W C, weight O H W I, thresholds H W I. */
    for (int axis = 0; axis < 2; axis++) desc.padding_before[axis] = desc.padding_after[axis] = 1;

    convrelu_plan plan;
    check(convrelu_plan_init(&plan, sizeof plan, &desc, CONVRELU_ISA_AUTO, &error));

    /* How many elements every buffer has; they may be static as well. */
    convrelu_lens lens = {.struct_size = sizeof lens};
    size_t workspace_len;
    check(convrelu_plan_lens(&plan, &lens, &error));
    check(convrelu_workspace_len(&plan, CONVRELU_FORWARD, &workspace_len, &error));
    float *input = floats(lens.input, 1.0f), *weight = floats(lens.weight, 0.5f);
    float *thresholds = floats(lens.thresholds, 0.25f), *bias = floats(lens.bias, 2.0f);
    float *output = floats(lens.output, 0.0f), *workspace = floats(workspace_len, 0.0f);

    convrelu_forward_args args;
    check(convrelu_forward_args_init(&args, sizeof args, &error));
    args.input = (convrelu_input){input, lens.input};
    args.weight = (convrelu_input){weight, lens.weight};
    args.threshold_kind = CONVRELU_THRESHOLDS_PER_TAP; /* or _LINEAR, _RELU, or _UNIFORM with args.threshold */
    args.thresholds = (convrelu_input){thresholds, lens.thresholds};
    args.bias = (convrelu_input){bias, lens.bias}; /* Without it, there is none. */
    args.output = (convrelu_output){output, lens.output};
    args.workspace = (convrelu_output){workspace, workspace_len};
    check(convrelu_forward(&plan, &args, &error));

    /* Inside, 27 inputs of 1. In a corner, 12 of them and 15 zeros of padding, which the threshold lifts to 0.25. */
    size_t height = lens.output_size[1], width = lens.output_size[2], middle = (height / 2 * width + width / 2) * 4;
    printf("%zux%zu, in the middle %g, in a corner %g\n", height, width, output[middle], output[0]);
    int right = output[middle] == 2.0f + 27 * 0.5f && output[0] == 2.0f + 12 * 0.5f + 15 * 0.5f * 0.25f;

    free(input), free(weight), free(thresholds), free(bias), free(output), free(workspace);
    return right ? 0 : 1;
}
