//! What the firmware needs of the machine: exit status, output, a clock, the depth of the stack. No `core::fmt`: it is
//! larger than the library.

use core::panic::PanicInfo;

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m_rt::{ExceptionFrame, exception};
use cortex_m_semihosting::debug::{self, EXIT_FAILURE, EXIT_SUCCESS};
use cortex_m_semihosting::syscall1;

/// Ends the emulator with the exit status 0 or 1.
pub fn exit(success: bool) -> ! {
    loop {
        debug::exit(if success { EXIT_SUCCESS } else { EXIT_FAILURE });
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    print("panic\n");
    exit(false)
}

// SAFETY: it returns to nowhere.
#[exception]
unsafe fn HardFault(_: &ExceptionFrame) -> ! {
    print("fault\n");
    exit(false)
}

/// Writes text to the emulator's standard output.
pub fn print(text: &str) {
    // Semihosting takes strings that end with a zero; it reads a character's address here.
    for byte in text.bytes() {
        // SAFETY: SYS_WRITEC reads the byte at the address.
        unsafe { syscall1!(WRITEC, &raw const byte) };
    }
}

/// Writes a line of a name and numbers.
pub fn report(name: &str, numbers: &[u32]) {
    print(name);
    for number in numbers {
        print(" ");
        print_number(*number);
    }
    print("\n");
}

fn print_number(mut value: u32) {
    let mut digits = [0; 10];
    let mut len = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
        len += 1;
        if value == 0 {
            break;
        }
    }
    for byte in digits.into_iter().skip(digits.len() - len) {
        // SAFETY: SYS_WRITEC reads the byte at the address.
        unsafe { syscall1!(WRITEC, &raw const byte) };
    }
}

/// The number that stands last on the emulator's command line: which result to spoil.
pub fn spoiled() -> Option<usize> {
    let mut line = [0u8; 80];
    let mut arguments = [line.as_mut_ptr() as usize, line.len()];
    // SAFETY: SYS_GET_CMDLINE writes the line and its length, within the length that it is given.
    let failed = unsafe { syscall1!(GET_CMDLINE, arguments.as_mut_ptr()) };
    let line = line.get(..arguments[1]).filter(|_| failed == 0)?;
    let word = line.trim_ascii_end().rsplit(|byte| *byte == b' ').next()?;
    core::str::from_utf8(word.strip_suffix(b"\0").unwrap_or(word)).ok()?.parse().ok()
}

/// Counts instructions, where the emulator takes a nanosecond for each (`-icount shift=0`).
pub struct Clock(SYST);

/// The machines' clock has 25 MHz.
const INSTRUCTIONS_PER_TICK: u32 = 40;

impl Clock {
    /// Starts the clock; `None` the second time.
    pub fn start() -> Option<Self> {
        let mut timer = cortex_m::Peripherals::take()?.SYST;
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(0x00ff_ffff);
        timer.clear_current();
        timer.enable_counter();
        Some(Self(timer))
    }

    /// Instructions of a call, to within a tick; it may take 600 million.
    pub fn count<T>(&mut self, call: impl FnOnce() -> T) -> (T, u32) {
        let before = SYST::get_current();
        let result = call();
        let ticks = before.wrapping_sub(SYST::get_current()) & 0x00ff_ffff;
        (result, ticks * INSTRUCTIONS_PER_TICK)
    }
}

/// The most bytes of stack that have been in use.
pub fn peak_stack() -> u32 {
    unsafe extern "C" {
        static _stack_end: u32;
        static _stack_start: u32;
    }
    let (end, start) = (&raw const _stack_end, &raw const _stack_start);
    let mut at = end;
    // SAFETY: what lies between is the stack, which the runtime has painted before `main`; it grows down to its end.
    while at < start && unsafe { at.read_volatile() } == cortex_m_rt::STACK_PAINT_VALUE {
        at = at.wrapping_add(1);
    }
    (start as usize - at as usize) as u32
}
