/* What a build without the features `capi-transposed` and `capi-epilogues` does: it computes plain layers, and says of all else
 * that it is left out, before it writes anything. */
#include <stdio.h>
#include <string.h>

#include "convrelu.h"

static int failures;

/* The status of a call, and a word of its sentence. */
static void expect(const char *what, convrelu_status status, convrelu_status expected, const convrelu_error *error,
                   const char *word) {
    char message[200] = "";
    convrelu_error_message(error, message, sizeof message, NULL);
    if (status == expected && error->status == (uint32_t)expected && strstr(message, word) != NULL) return;
    fprintf(stderr, "%s: status %d, where %d and \"%s\" belong: %s\n", what, (int)status, (int)expected, word, message);
    failures++;
}

int main(void) {
    float input[] = {2, 3, 4}, weight[] = {1, -1}, thresholds[] = {0, 3.5f}, output[2] = {7, 7}, workspace[64];
    convrelu_error error = {.struct_size = sizeof error};
    convrelu_desc desc;
    convrelu_plan plan, transposed;
    convrelu_forward_args args;
    convrelu_epilogue epilogue;
    if (convrelu_conv1d_init(&desc, sizeof desc, 1, 1, 1, 3, 2, NULL) != CONVRELU_OK ||
        convrelu_plan_init(&plan, sizeof plan, &desc, CONVRELU_ISA_AUTO, NULL) != CONVRELU_OK ||
        convrelu_forward_args_init(&args, sizeof args, NULL) != CONVRELU_OK ||
        convrelu_epilogue_init(&epilogue, sizeof epilogue, NULL) != CONVRELU_OK) {
        fprintf(stderr, "a plain layer is refused\n");
        return 1;
    }
    args.input = (convrelu_input){input, 3}, args.weight = (convrelu_input){weight, 2};
    args.thresholds = (convrelu_input){thresholds, 2}, args.threshold_kind = CONVRELU_THRESHOLDS_PER_TAP;
    args.output = (convrelu_output){output, 2}, args.workspace = (convrelu_output){workspace, 64};

    args.epilogue = &epilogue;
    expect("an epilogue", convrelu_forward(&plan, &args, &error), CONVRELU_LEFT_OUT, &error, "capi-epilogues");
    args.epilogue = NULL;

    desc.kind = CONVRELU_TRANSPOSED;
    memset(&transposed, 0, sizeof transposed);
    expect("a transposed layer", convrelu_plan_init(&transposed, sizeof transposed, &desc, CONVRELU_ISA_AUTO, &error),
           CONVRELU_LEFT_OUT, &error, "capi-transposed");
    if (transposed.magic != 0) failures++, fprintf(stderr, "a refused plan is written\n");
    /* A plan that another build has made. */
    transposed = plan, transposed.desc.kind = CONVRELU_TRANSPOSED;
    expect("a plan of one", convrelu_forward(&transposed, &args, &error), CONVRELU_LEFT_OUT, &error, "capi-transposed");
    if (output[0] != 7 || output[1] != 7) failures++, fprintf(stderr, "a refused call writes\n");

    expect("a plain layer", convrelu_forward(&plan, &args, &error), CONVRELU_OK, &error, "no error");
    if (output[0] != -1.5f || output[1] != -1) failures++, fprintf(stderr, "%g %g\n", output[0], output[1]);
    if (failures == 0) printf("what is left out says so\n");
    return failures != 0;
}
