//! A small 1D network on real digits, for firmware without an operating system and for the host that knows its results.

#![no_std]

#[cfg(target_os = "none")]
pub mod board;
pub mod golden;
pub mod kernels;
pub mod network;
