//! The panic handler of a static library without operating system. A panic would be a bug in this library.

unsafe extern "C" {
    /// The C library has it. Firmware without a C library defines it.
    safe fn abort() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    abort()
}
