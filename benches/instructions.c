// A plugin for QEMU's user mode that counts the instructions a program executes.
//
// Debian's packages of QEMU come without qemu-plugin.h, so what is used of it is declared here. It is the same in every
// version of the interface but for the number, which a QEMU checks: 1 from 4.2 on, at least 2 from 9.1 on
// (-DINTERFACE=2).

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

#ifndef INTERFACE
#define INTERFACE 1
#endif

struct qemu_plugin_tb;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*callback)(uint64_t id, struct qemu_plugin_tb *block));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *block, void (*callback)(unsigned cpu, void *data),
                                          enum qemu_plugin_cb_flags flags, void *data);
void qemu_plugin_register_atexit_cb(uint64_t id, void (*callback)(uint64_t id, void *data), void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);

int qemu_plugin_version = INTERFACE;

// The program has one thread.
static uint64_t instructions;

static void on_execution(unsigned cpu, void *length) {
    (void)cpu;
    instructions += (uintptr_t)length;
}

static void on_translation(uint64_t id, struct qemu_plugin_tb *block) {
    (void)id;
    void *length = (void *)(uintptr_t)qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_execution, QEMU_PLUGIN_CB_NO_REGS, length);
}

static void on_exit(uint64_t id, void *data) {
    (void)id;
    (void)data;
    fprintf(stderr, "instructions: %" PRIu64 "\n", instructions);
}

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv) {
    (void)info;
    (void)argc;
    (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_atexit_cb(id, on_exit, NULL);
    return 0;
}
