/* The paper's example, then one training step of a layer, through the C interface. Exits with 1 where a number is wrong.
 *
 *   cargo rustc --release --features capi --crate-type cdylib
 *   cc tests/capi/example.c -Isrc/capi -Ltarget/release -lconvrelu -lm -o example && LD_LIBRARY_PATH=target/release ./example
 */
#include <math.h>
#include <stdint.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "convrelu.h"

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
    printf("%-16s", what);
    for (size_t i = 0; i < len; i++) printf(" %g", values[i]);
    printf("\n");
}

#define READ(array) {array, sizeof(array) / sizeof(float)}
#define WRITE(array) {array, sizeof(array) / sizeof(float)}

int main(void) {
    uint32_t major, minor, patch;
    check(convrelu_version(&major, &minor, &patch, &error));
    printf("convrelu %u.%u.%u\n", major, minor, patch);

    convrelu_desc desc;
    check(convrelu_desc_init(&desc, sizeof desc, 1, &error));
    desc.in_channels = 1;
    desc.out_channels = 1;
    desc.size[0] = 3;
    desc.kernel[0] = 2;
    convrelu_plan plan;
    check(convrelu_plan_init(&plan, sizeof plan, &desc, CONVRELU_ISA_AUTO, &error));

    const float x[] = {2, 3, 4}, w[] = {1, -1}, theta[] = {0, 3.5f}, g[] = {1, 1};
    float y[2], dx[3], dtheta[2], dw[2], db[1], workspace[4096];
    size_t len;
    for (uint32_t pass = CONVRELU_FORWARD; pass <= CONVRELU_BACKWARD_WEIGHT; pass++) {
        check(convrelu_workspace_len(&plan, pass, &len, &error));
        if (len > sizeof workspace / sizeof *workspace) return 1;
    }

    convrelu_forward_args forward = {
        .struct_size = sizeof forward,
        .input = READ(x),
        .weight = READ(w),
        .thresholds = READ(theta),
        .output = WRITE(y),
        .workspace = WRITE(workspace),
    };
    check(convrelu_forward(&plan, &forward, &error));
    expect("output", y, (const float[]){-1.5f, -1}, 2);

    convrelu_backward_input_args backward_input = {
        .struct_size = sizeof backward_input,
        .input = READ(x),
        .weight = READ(w),
        .thresholds = READ(theta),
        .grad_output = READ(g),
        .grad_input = WRITE(dx),
        .grad_thresholds = WRITE(dtheta),
        .workspace = WRITE(workspace),
    };
    check(convrelu_backward_input(&plan, &backward_input, &error));
    expect("grad_input", dx, (const float[]){1, 1, -1}, 3);
    expect("grad_thresholds", dtheta, (const float[]){0, -1}, 2);

    convrelu_backward_weight_args backward_weight = {
        .struct_size = sizeof backward_weight,
        .input = READ(x),
        .thresholds = READ(theta),
        .grad_output = READ(g),
        .grad_weight = WRITE(dw),
        .grad_bias = WRITE(db),
        .workspace = WRITE(workspace),
    };
    check(convrelu_backward_weight(&plan, &backward_weight, &error));
    expect("grad_weight", dw, (const float[]){5, 7.5f}, 2);
    expect("grad_bias", db, (const float[]){2}, 1);

    /* Packed once for many calls. */
    convrelu_lens lens = {.struct_size = sizeof lens};
    check(convrelu_plan_lens(&plan, &lens, &error));
    float *packed = malloc(lens.packed_weight * sizeof *packed);
    if (packed == NULL) return 1;
    convrelu_output room = {packed, lens.packed_weight};
    check(convrelu_pack_weight(&plan, CONVRELU_FORWARD, (convrelu_input)READ(w), room, &error));
    forward.weight = (convrelu_input){packed, lens.packed_weight};
    forward.weight_kind = CONVRELU_WEIGHT_PACKED;
    check(convrelu_forward(&plan, &forward, &error));
    expect("output, packed", y, (const float[]){-1.5f, -1}, 2);

    /* A mistake is a status, and a sentence. */
    forward.output.len = 1;
    if (convrelu_forward(&plan, &forward, &error) != CONVRELU_BUFFER_TOO_SHORT) return 1;
    char message[200];
    check(convrelu_error_message(&error, message, sizeof message, NULL));
    printf("refused:         %s\n", message);
    free(packed);
    return 0;
}
