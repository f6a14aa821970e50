//! What a framebuffer's driver says of it: `linux/fb.h`.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

const FBIOGET_VSCREENINFO: u32 = 0x4600;
const FBIOPUT_VSCREENINFO: u32 = 0x4601;
const FBIOGET_FSCREENINFO: u32 = 0x4602;
const FBIOBLANK: u32 = 0x4611;
const FB_ACTIVATE_FORCE: u32 = 128;
const FB_BLANK_UNBLANK: libc::c_ulong = 0;

/// `struct fb_bitfield`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Bits {
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) msb_right: u32,
}

/// `struct fb_var_screeninfo`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Variable {
    pub(super) xres: u32,
    pub(super) yres: u32,
    xres_virtual: u32,
    yres_virtual: u32,
    pub(super) xoffset: u32,
    pub(super) yoffset: u32,
    pub(super) bits_per_pixel: u32,
    pub(super) grayscale: u32,
    pub(super) red: Bits,
    pub(super) green: Bits,
    pub(super) blue: Bits,
    transp: Bits,
    pub(super) nonstd: u32,
    activate: u32,
    /// `height` to `reserved`, which nobody asks about.
    rest: [u32; 18],
}

/// `struct fb_fix_screeninfo`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Fixed {
    id: [u8; 16],
    smem_start: libc::c_ulong,
    smem_len: u32,
    pub(super) kind: u32,
    type_aux: u32,
    pub(super) visual: u32,
    steps: [u16; 3],
    pub(super) line_length: u32,
    mmio_start: libc::c_ulong,
    mmio_len: u32,
    accel: u32,
    capabilities: u16,
    reserved: [u16; 2],
}

/// Asks the driver behind an open file.
pub(super) fn screen(file: &File) -> io::Result<(Fixed, Variable)> {
    let (mut fixed, mut variable) = (Fixed::default(), Variable::default());
    ask(file, FBIOGET_FSCREENINFO, &mut fixed)?;
    ask(file, FBIOGET_VSCREENINFO, &mut variable)?;
    Ok((fixed, variable))
}

/// Switches the screen on, in the mode that it has: as long as the kernel's console has nothing to say it may have left that to whoever
/// comes first (`CONFIG_FRAMEBUFFER_CONSOLE_DEFERRED_TAKEOVER`), or have blanked the screen. A driver that cannot is none the worse.
pub(super) fn switch_on(file: &File, variable: &Variable) {
    let mut variable = Variable {
        activate: FB_ACTIVATE_FORCE,
        ..*variable
    };
    let _ = ask(file, FBIOPUT_VSCREENINFO, &mut variable);
    // SAFETY: the file is open, and the request takes a number.
    unsafe { libc::ioctl(file.as_raw_fd(), FBIOBLANK as _, FB_BLANK_UNBLANK) };
}

/// `T` is the structure that the driver reads or fills for the request.
fn ask<T>(file: &File, request: u32, answer: &mut T) -> io::Result<()> {
    // SAFETY: the file is open; the request reads or writes one structure of the kind that `answer` is laid out as, of integers alone, and
    // `answer` outlives the call. A file that is no framebuffer answers with an error.
    match unsafe { libc::ioctl(file.as_raw_fd(), request as _, std::ptr::from_mut(answer)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_as_large_as_the_kernels() {
        assert_eq!(size_of::<Variable>(), 160);
        let word = size_of::<libc::c_ulong>();
        assert_eq!(size_of::<Fixed>(), if word == 8 { 80 } else { 68 });
    }
}
