//! What would make drawing faster here, in plain words. Each sentence has a finding as its reason: without one, nothing is
//! advised.

use kiln_kernels::Isa;

use super::machine::{Cause, Machine};
use super::package::Report;
use super::words::{list, megabytes};

/// Above this, in degrees Celsius, small boards begin to slow down.
const WARM: f64 = 80.0;

/// Advice about the machine, then about each package.
pub fn advice(machine: &Machine, isa: Isa, threads: usize, packages: &[Report]) -> Vec<String> {
    let mut all = Vec::new();
    kernels(isa, &mut all);
    slowed(machine, &mut all);
    shared(machine, threads, &mut all);
    for package in packages {
        of_package(machine, package, &mut all);
    }
    all
}

fn kernels(isa: Isa, all: &mut Vec<String>) {
    let best = Isa::detect();
    if isa != best {
        all.push(format!(
            "KILN_ISA asks for the kernels of {isa}; those of {best}, the fastest here, are used without it."
        ));
    } else if best == Isa::Scalar {
        all.push(
            "This CPU has no instruction set that Kiln has fast kernels for (AVX2 or AVX-512 with VNNI on x86-64, Advanced \
             SIMD on AArch64): drawing takes ten times as long or more. Another computer is the only remedy."
                .into(),
        );
    }
}

fn slowed(machine: &Machine, all: &mut Vec<String>) {
    let says = |cause: Cause| machine.throttling.iter().find(|one| one.cause == cause);
    if let Some(low) = says(Cause::Voltage) {
        let when = if low.now { "is" } else { "has been" };
        all.push(format!(
            "The voltage {when} too low, and the board slows down for it: use a stronger power supply or a shorter, thicker cable."
        ));
    }
    let hot = machine.hottest().filter(|degrees| *degrees >= WARM);
    let slow = says(Cause::Throttled).or(says(Cause::Heat));
    // The firmware slows down for the voltage too; that is said above.
    let slow = slow.filter(|_| says(Cause::Voltage).is_none() || says(Cause::Heat).is_some());
    match (hot, slow) {
        (Some(degrees), _) => all.push(format!(
            "It is {degrees:.0} °C warm, and boards slow down at {WARM:.0}: give it a heat sink, a fan, or air around it."
        )),
        (None, Some(one)) if one.now => all.push(
            "It is being slowed down for its heat: give it a heat sink, a fan, or air around it.".into(),
        ),
        (None, Some(_)) => all.push(
            "It has been slowed down for its heat since it was started: under a long drawing it will be again. A heat sink or a \
             fan helps."
                .into(),
        ),
        (None, None) => {}
    }
    let Some(clock) = &machine.clock else { return };
    if clock.allowed < clock.most {
        all.push(format!(
            "The clock is kept to {} of {} MHz: write the larger into scaling_max_freq under /sys/devices/system/cpu/cpu*/cpufreq/.",
            clock.allowed, clock.most
        ));
    }
    // Drivers of newer x86 CPUs call it `powersave` when the CPU itself decides, and then there is no clock to compare.
    let held = clock.now.is_some_and(|now| now * 10 < clock.allowed * 7);
    if clock.governor == "powersave" && held {
        all.push(format!(
            "The governor powersave keeps the clock at {} of {} MHz: write performance or ondemand into scaling_governor under \
             /sys/devices/system/cpu/cpu*/cpufreq/.",
            clock.now.unwrap_or(0),
            clock.allowed
        ));
    }
}

fn shared(machine: &Machine, threads: usize, all: &mut Vec<String>) {
    let (allowed, cpus) = (machine.allowed.len(), machine.cpus.len());
    if allowed > 0 && allowed < cpus {
        all.push(format!(
            "Kiln may run on {allowed} of {cpus} CPUs: taskset, a container or a service's CPUAffinity keeps it from the others."
        ));
    }
    if let Some(quota) = machine.quota.filter(|quota| *quota < allowed as f64) {
        let fewer = (quota.floor() as usize).max(1);
        all.push(format!(
            "The control group allows {quota:.1} CPUs' time on {allowed} CPUs: raise CPUQuota, or draw with --threads {fewer}, so \
             that no thread waits for one that is held back."
        ));
    }
    // What runs besides must be more than a shell or a display.
    if let Some(load) = machine.load.filter(|load| *load >= 0.5 && allowed > 0) {
        all.push(format!(
            "Other programs have wanted {load:.1} CPUs in the last minute: every thread of Kiln ({threads}) waits for the \
             slowest, so a drawing that has the CPUs for itself is much faster."
        ));
    }
}

fn of_package(machine: &Machine, package: &Report, all: &mut Vec<String>) {
    let name = &package.name;
    if matches!(package.precision.as_str(), "f16" | "f32") {
        all.push(format!(
            "{name} is in {}: compiled with --precision int8 it is smaller, and faster.",
            package.precision
        ));
    }
    let Some(room) = machine.room() else { return };
    let (whole, others): (Vec<_>, Vec<_>) = package.sizes.iter().partition(|size| size.all <= room);
    if others.is_empty() {
        return;
    }
    let named = |sizes: &[&super::package::Size]| {
        list(
            sizes
                .iter()
                .map(|size| format!("{}x{}", size.width, size.height)),
        )
    };
    let (streamed, none): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|size| size.least <= room);
    if !none.is_empty() {
        let rest = if whole.is_empty() && streamed.is_empty() {
            "Close other programs, or compile it with a smaller --size.".to_owned()
        } else {
            format!(
                "{} fits.",
                named(&[whole.clone(), streamed.clone()].concat())
            )
        };
        all.push(format!(
            "{name} at {} takes more than the {} that are free. {rest}",
            named(&none),
            megabytes(room)
        ));
    }
    if streamed.is_empty() {
        return;
    }
    let read = megabytes(package.step_weights);
    let mut text = format!(
        "{name} at {} does not fit in the {} that are free with all its weights: draw with --ram auto, and {read} of weights \
         are read from the disk in each step",
        named(&streamed),
        megabytes(room)
    );
    match package.speed {
        Some(speed) if speed > 0.0 => {
            let seconds = package.step_weights as f64 / speed;
            text.push_str(&format!(
                ", which takes {seconds:.1} s of each. A faster disk, or {} more memory, saves that where the reading is slower \
                 than the computing.",
                megabytes(streamed.iter().map(|size| size.all).max().unwrap_or(0) - room)
            ));
        }
        _ => text.push('.'),
    }
    all.push(text);
}
