//! What a static library without operating system does in a panic, which would be a bug in this library.

unsafe extern "C" {
    /// Of the C library; firmware without one defines it.
    safe fn abort() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    abort()
}
