//! Machines made of files.

use std::fs;
use std::path::Path;

use kiln_kernels::Isa;
use tempfile::TempDir;

use super::advice::advice;
use super::machine::{Cause, Clock, Machine, Throttling};
use super::package::{Report, Size};

/// A folder with these files.
fn root(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (path, text) in files {
        write(folder.path(), path, text.as_bytes());
    }
    folder
}

fn write(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("has one")).expect("made");
    fs::write(path, bytes).expect("written");
}

const PI: &[(&str, &str)] = &[
    ("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0"),
    (
        "proc/cpuinfo",
        "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\n\
         processor\t: 1\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n",
    ),
    (
        "proc/meminfo",
        "MemTotal:  948304 kB\nMemFree: 12 kB\nMemAvailable: 500000 kB\nSwapTotal: 102396 kB\n",
    ),
    (
        "proc/self/status",
        "Name:\tkiln\nCpus_allowed_list:\t0,2-3\n",
    ),
    ("proc/self/cgroup", "0::/kiln.service\n"),
    ("proc/loadavg", "1.25 0.50 0.25 2/180 1234\n"),
    ("sys/fs/cgroup/kiln.service/memory.max", "268435456\n"),
    ("sys/fs/cgroup/kiln.service/cpu.max", "150000 100000\n"),
    ("sys/fs/cgroup/cpu.max", "max 100000\n"),
    ("sys/devices/system/cpu/online", "0-3\n"),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq",
        "600000\n",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq",
        "1500000\n",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
        "1800000\n",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
        "powersave\n",
    ),
    ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
    ("sys/class/thermal/thermal_zone0/temp", "82375\n"),
    ("sys/class/thermal/thermal_zone1/temp", "0\n"),
    (
        "sys/devices/platform/soc/soc:firmware/get_throttled",
        "50005\n",
    ),
];

#[test]
fn a_board_is_read_from_its_files() {
    let folder = root(PI);
    let mut vector = Vec::new();
    for (key, value) in [(3_usize, 64_usize), (6, 16384), (0, 0)] {
        vector.extend(key.to_le_bytes());
        vector.extend(value.to_le_bytes());
    }
    write(folder.path(), "proc/self/auxv", &vector);
    let throttling = |cause| Throttling { cause, now: true };
    assert_eq!(
        Machine::read(folder.path()),
        Machine {
            board: Some("Raspberry Pi 4 Model B Rev 1.4".into()),
            cpu: Some("Cortex-A72".into()),
            extensions: vec!["asimd"],
            cpus: vec![0, 1, 2, 3],
            allowed: vec![0, 2, 3],
            cores: 3,
            quota: Some(1.5),
            load: Some(1.25),
            clock: Some(Clock {
                now: Some(600),
                allowed: 1500,
                most: 1800,
                governor: "powersave".into(),
            }),
            temperatures: vec![("cpu-thermal".into(), 82.375)],
            throttling: vec![throttling(Cause::Voltage), throttling(Cause::Throttled),],
            memory: Some(948_304 * 1024),
            available: Some(500_000 * 1024),
            swap: Some(102_396 * 1024),
            memory_limit: Some(256 << 20),
            page: Some(16384),
        }
    );
}

#[test]
fn a_pc_has_threads_and_version_one_groups() {
    let folder = root(&[
        (
            "proc/cpuinfo",
            "model name\t: Some CPU\nflags\t\t: fpu avx avx2 fma f16c rtm\n",
        ),
        ("proc/self/status", "Cpus_allowed_list:\t0-3\n"),
        ("proc/self/cgroup", "4:memory:/a\n3:cpu,cpuacct:/a\n"),
        ("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "200000\n"),
        ("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n"),
        ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
        ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000000\n"),
        ("sys/devices/system/cpu/online", "0-3"),
        (
            "sys/devices/system/cpu/cpu0/topology/thread_siblings_list",
            "0-1",
        ),
        (
            "sys/devices/system/cpu/cpu1/topology/thread_siblings_list",
            "0-1",
        ),
        ("sys/devices/system/cpu/cpu2/topology/core_cpus_list", "2-3"),
        ("sys/devices/system/cpu/cpu3/topology/core_cpus_list", "2-3"),
        (
            "sys/devices/system/cpu/cpu2/thermal_throttle/core_throttle_count",
            "7\n",
        ),
        ("sys/class/hwmon/hwmon1/name", "rpi_volt\n"),
        ("sys/class/hwmon/hwmon1/in0_lcrit_alarm", "1\n"),
    ]);
    let machine = Machine::read(folder.path());
    assert_eq!(machine.cpu.as_deref(), Some("Some CPU"));
    assert_eq!(machine.extensions, ["avx", "f16c", "fma", "avx2"]);
    assert_eq!((machine.cores, machine.quota), (2, Some(2.0)));
    assert_eq!(machine.memory_limit, Some(1_000_000));
    assert_eq!(
        machine.throttling,
        [
            Throttling {
                cause: Cause::Voltage,
                now: true
            },
            Throttling {
                cause: Cause::Heat,
                now: false
            }
        ]
    );
}

/// Files that are not there, empty, or hold something else than they should.
#[test]
fn what_is_not_told_is_unknown() {
    let empty = root(&[]);
    assert_eq!(Machine::read(empty.path()), Machine::default());
    let nonsense: Vec<(&str, &str)> = PI
        .iter()
        .map(|(path, _)| (*path, "\u{1F525}: \n-1 -"))
        .collect();
    let folder = root(&nonsense);
    write(folder.path(), "proc/self/auxv", &[0xff; 37]);
    let machine = Machine::read(folder.path());
    assert_eq!(machine.cpus, [0_usize; 0]);
    assert_eq!(
        (machine.memory, machine.page, machine.quota),
        (None, None, None)
    );
    assert_eq!(machine.throttling, []);
    // A list that claims all numbers there are takes no memory for them.
    let folder = root(&[("sys/devices/system/cpu/online", "0-18446744073709551615")]);
    assert!(Machine::read(folder.path()).cpus.len() <= 1 << 17);
}

/// The best kernels of this machine: nothing to say about them, unless it has none.
fn said(machine: &Machine, packages: &[Report]) -> Vec<String> {
    let mut all = advice(machine, Isa::detect(), 4, packages);
    all.retain(|text| !text.contains("no instruction set"));
    all
}

fn one<'a>(all: &'a [String], part: &str) -> &'a str {
    let found: Vec<_> = all.iter().filter(|text| text.contains(part)).collect();
    assert_eq!(found.len(), 1, "{part}: {all:#?}");
    found[0]
}

#[test]
fn each_finding_has_its_advice_and_nothing_else_is_advised() {
    assert_eq!(said(&Machine::default(), &[]), [""; 0]);
    let folder = root(PI);
    let all = said(&Machine::read(folder.path()), &[]);
    one(&all, "voltage is too low");
    one(&all, "82 °C");
    one(&all, "kept to 1500 of 1800 MHz");
    one(
        &all,
        "governor powersave keeps the clock at 600 of 1500 MHz",
    );
    one(&all, "3 of 4 CPUs");
    one(&all, "--threads 1,");
    one(&all, "wanted 1.2 CPUs");
    assert_eq!(all.len(), 7, "{all:#?}");

    let was_hot = Machine {
        throttling: vec![Throttling {
            cause: Cause::Heat,
            now: false,
        }],
        ..Machine::default()
    };
    one(&said(&was_hot, &[]), "has been slowed down for its heat");
}

#[test]
fn slower_kernels_than_there_are_are_named() {
    let all = advice(&Machine::default(), Isa::Scalar, 1, &[]);
    assert_eq!(all.len(), 1, "{all:#?}");
    let expected = if Isa::detect() == Isa::Scalar {
        "no instruction set"
    } else {
        "KILN_ISA asks for the kernels of scalar"
    };
    one(&all, expected);
}

fn report(speed: Option<f64>) -> Report {
    let size = |width, all, least| Size {
        width,
        height: 512,
        allocated: least / 2,
        all,
        least,
    };
    Report {
        name: "sd15.kiln".into(),
        precision: "int8".into(),
        place: None,
        speed,
        step_weights: 800_000_000,
        sizes: vec![
            size(256, 200_000_000, 100_000_000),
            size(512, 1_300_000_000, 300_000_000),
            size(1024, 2_000_000_000, 900_000_000),
        ],
    }
}

#[test]
fn a_service_is_held_to_its_largest_picture() {
    let text = super::unit(&[report(None)]).expect("a unit");
    assert!(
        text.ends_with("[Service]\nMemoryMax=2067108864\n"),
        "{text}"
    );
    assert!(super::unit(&[]).is_err());
}

#[test]
fn what_does_not_fit_is_told_with_what_fits() {
    let machine = |available| Machine {
        available: Some(available),
        ..Machine::default()
    };
    assert_eq!(said(&machine(3_000_000_000), &[report(None)]), [""; 0]);
    let all = said(&machine(500_000_000), &[report(Some(20e6))]);
    let none = one(&all, "takes more than");
    assert!(
        none.contains("1024x512") && none.contains("256x512 and 512x512 fits"),
        "{none}"
    );
    let streamed = one(&all, "--ram auto");
    assert!(
        streamed.contains("800.0 MB") && streamed.contains("40.0 s"),
        "{streamed}"
    );
    assert_eq!(all.len(), 2, "{all:#?}");
    let all = said(&machine(1_000_000), &[report(Some(20e6))]);
    assert!(one(&all, "takes more than").contains("smaller --size"));
    // The smaller of the two counts.
    let limited = Machine {
        memory_limit: Some(1_000_000),
        ..machine(3_000_000_000)
    };
    one(&said(&limited, &[report(None)]), "1.0 MB that are free");
    let wide = Report {
        precision: "f16".into(),
        ..report(None)
    };
    one(&said(&Machine::default(), &[wide]), "--precision int8");
}
