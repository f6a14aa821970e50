//! What the kernel tells about the machine under `/proc` and `/sys`. What it does not tell is `None`, or empty.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use kiln::runtime::memory;

/// A machine, as its kernel describes it.
#[derive(Debug, Default, PartialEq)]
pub struct Machine {
    /// The board's name, such as `Raspberry Pi 4 Model B Rev 1.4`.
    pub board: Option<String>,
    /// The CPU's name; of a CPU with cores of several kinds, all of them.
    pub cpu: Option<String>,
    /// What the CPU has of the extensions that matter for kernels.
    pub extensions: Vec<&'static str>,
    /// CPUs that are switched on; two of them may be threads of one core.
    pub cpus: Vec<usize>,
    /// Those that this process may run on.
    pub allowed: Vec<usize>,
    /// Cores that the allowed CPUs belong to.
    pub cores: usize,
    /// CPU time in CPUs that the control group may take.
    pub quota: Option<f64>,
    /// Tasks that ran or waited in the last minute, on average.
    pub load: Option<f64>,
    /// Clock of the first allowed CPU.
    pub clock: Option<Clock>,
    /// Temperatures, each with the name of its sensor.
    pub temperatures: Vec<(String, f64)>,
    /// What slows the machine down, or has since it was started.
    pub throttling: Vec<Throttling>,
    /// All memory, in bytes.
    pub memory: Option<u64>,
    /// Memory that is there for programs that are started now, in bytes.
    pub available: Option<u64>,
    /// Swap, in bytes.
    pub swap: Option<u64>,
    /// The smallest limit of the memory control groups that this process is in.
    pub memory_limit: Option<u64>,
    /// Bytes of a page.
    pub page: Option<u64>,
}

/// How fast a CPU runs, in MHz.
#[derive(Debug, PartialEq)]
pub struct Clock {
    /// Now.
    pub now: Option<u64>,
    /// As fast as it is allowed to.
    pub allowed: u64,
    /// As fast as it can.
    pub most: u64,
    /// Who decides, such as `ondemand`.
    pub governor: String,
}

/// A reason why a machine is slower than it could be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttling {
    /// What it is.
    pub cause: Cause,
    /// Whether it is so now, or was at some time since the start.
    pub now: bool,
}

/// What slows a machine down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The power supply gives too little.
    Voltage,
    /// The clock is limited.
    Clock,
    /// The firmware slows down.
    Throttled,
    /// It is warmer than it should be.
    Heat,
}

impl Cause {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Voltage => "under-voltage",
            Cause::Clock => "clock limited",
            Cause::Throttled => "slowed down",
            Cause::Heat => "too warm",
        }
    }
}

impl Machine {
    /// The machine whose `/proc` and `/sys` lie under `root`.
    pub fn read(root: &Path) -> Self {
        let cpuinfo = text(&root.join("proc/cpuinfo")).unwrap_or_default();
        let meminfo = text(&root.join("proc/meminfo")).unwrap_or_default();
        let status = text(&root.join("proc/self/status")).unwrap_or_default();
        let system = root.join("sys/devices/system/cpu");
        let listed = |text: Option<String>| text.map(|text| list(&text)).unwrap_or_default();
        let cpus = listed(text(&system.join("online")));
        let allowed: Vec<usize> = listed(field(&status, "Cpus_allowed_list"))
            .into_iter()
            .filter(|cpu| cpus.is_empty() || cpus.contains(cpu))
            .collect();
        let bytes = |key| kilobytes(&field(&meminfo, key)?);
        Machine {
            board: text(&root.join("proc/device-tree/model"))
                .or_else(|| text(&root.join("sys/firmware/devicetree/base/model")))
                .or_else(|| text(&root.join("sys/class/dmi/id/product_name")))
                .map(|name| name.trim_matches(['\0', ' ', '\n']).to_owned())
                .filter(|name| !name.is_empty()),
            cpu: cpu(&cpuinfo),
            extensions: extensions(&cpuinfo),
            cores: cores(&system, &allowed),
            quota: quota(root),
            load: text(&root.join("proc/loadavg"))
                .and_then(|text| text.split_whitespace().next()?.parse().ok()),
            clock: allowed
                .first()
                .and_then(|cpu| clock(&system.join(format!("cpu{cpu}/cpufreq")))),
            temperatures: temperatures(&root.join("sys/class/thermal")),
            throttling: throttling(root, &allowed),
            memory: bytes("MemTotal"),
            available: bytes("MemAvailable"),
            swap: bytes("SwapTotal"),
            memory_limit: memory::cgroup_limit(root),
            page: fs::read(root.join("proc/self/auxv"))
                .ok()
                .and_then(|vector| page(&vector)),
            cpus,
            allowed,
        }
    }

    /// The hottest temperature.
    pub fn hottest(&self) -> Option<f64> {
        self.temperatures
            .iter()
            .map(|(_, degrees)| *degrees)
            .reduce(f64::max)
    }

    /// Bytes that a program that is started now may take, its control groups' limit included.
    pub fn room(&self) -> Option<u64> {
        [self.available, self.memory_limit]
            .into_iter()
            .flatten()
            .min()
    }
}

/// The text of a file, without the blanks around it.
fn text(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim().to_owned())
}

fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

/// The value of the first line `key: value`, blanks around both left out.
fn field(text: &str, key: &str) -> Option<String> {
    fields(text, key).next()
}

fn fields<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = String> + 'a {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .filter(move |(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().to_owned())
}

/// `N kB` in bytes.
fn kilobytes(text: &str) -> Option<u64> {
    let kilobytes: u64 = text.strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The numbers of a list such as `0-3,6`, the kernel's way to write a set.
fn list(text: &str) -> Vec<usize> {
    /// More CPUs than any machine has: what is beyond is no list of CPUs.
    const MOST: usize = 1 << 16;
    let mut numbers = BTreeSet::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            numbers.extend(first..=last.min(MOST));
        }
    }
    numbers.into_iter().collect()
}

/// The name that `/proc/cpuinfo` gives a CPU, or on ARM the names of its cores' parts.
fn cpu(cpuinfo: &str) -> Option<String> {
    if let Some(name) = field(cpuinfo, "model name") {
        return Some(name);
    }
    let makers = fields(cpuinfo, "CPU implementer");
    let mut names: Vec<String> = Vec::new();
    for (maker, part) in makers.zip(fields(cpuinfo, "CPU part")) {
        let name = match (maker.as_str(), part.as_str()) {
            ("0x41", "0xd03") => "Cortex-A53".to_owned(),
            ("0x41", "0xd04") => "Cortex-A35".to_owned(),
            ("0x41", "0xd05") => "Cortex-A55".to_owned(),
            ("0x41", "0xd07") => "Cortex-A57".to_owned(),
            ("0x41", "0xd08") => "Cortex-A72".to_owned(),
            ("0x41", "0xd09") => "Cortex-A73".to_owned(),
            ("0x41", "0xd0a") => "Cortex-A75".to_owned(),
            ("0x41", "0xd0b") => "Cortex-A76".to_owned(),
            ("0x41", "0xd0c") => "Neoverse-N1".to_owned(),
            ("0x41", "0xd41") => "Cortex-A78".to_owned(),
            _ => format!("implementer {maker} part {part}"),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    (!names.is_empty()).then(|| names.join(", "))
}

/// Those extensions of the first CPU that kernels use or could use, under the kernel's names.
fn extensions(cpuinfo: &str) -> Vec<&'static str> {
    const KNOWN: [&str; 13] = [
        "avx",
        "f16c",
        "fma",
        "avx2",
        "avx_vnni",
        "avx512f",
        "avx512bw",
        "avx512_vnni",
        "asimd",
        "asimdhp",
        "asimddp",
        "i8mm",
        "bf16",
    ];
    let flags = field(cpuinfo, "flags").or_else(|| field(cpuinfo, "Features"));
    let flags = flags.unwrap_or_default();
    let flags: BTreeSet<&str> = flags.split_whitespace().collect();
    KNOWN
        .into_iter()
        .filter(|name| flags.contains(name))
        .collect()
}

/// How many cores these CPUs are threads of; a CPU of which nothing is known is a core.
fn cores(system: &Path, cpus: &[usize]) -> usize {
    let siblings = |cpu: &usize| {
        let topology = system.join(format!("cpu{cpu}/topology"));
        text(&topology.join("core_cpus_list"))
            .or_else(|| text(&topology.join("thread_siblings_list")))
            .unwrap_or_else(|| cpu.to_string())
    };
    cpus.iter().map(siblings).collect::<BTreeSet<_>>().len()
}

/// The CPU time of the control groups that this process is in, in CPUs; the smallest on the way up.
fn quota(root: &Path) -> Option<f64> {
    let groups = text(&root.join("proc/self/cgroup"))?;
    let mounted = root.join("sys/fs/cgroup");
    let mut least: Option<f64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let folder = match controllers {
            "" => mounted.clone(),
            list if list.split(',').any(|name| name == "cpu") => mounted.join("cpu"),
            _ => continue,
        };
        let mut group = folder.join(path.trim_start_matches('/'));
        while group.starts_with(&folder) {
            let found = if controllers.is_empty() {
                text(&group.join("cpu.max")).and_then(|text| {
                    let (quota, period) = text.split_once(' ')?;
                    Some((quota.parse().ok()?, period.parse().ok()?))
                })
            } else {
                number::<f64>(&group.join("cpu.cfs_quota_us"))
                    .zip(number::<f64>(&group.join("cpu.cfs_period_us")))
            };
            // -1 is no limit.
            let found = found
                .filter(|(quota, period)| *quota > 0.0 && *period > 0.0)
                .map(|(quota, period)| quota / period);
            least = [least, found].into_iter().flatten().reduce(f64::min);
            if !group.pop() {
                break;
            }
        }
    }
    least
}

fn clock(folder: &Path) -> Option<Clock> {
    let kilohertz = |name: &str| number::<u64>(&folder.join(name));
    Some(Clock {
        now: kilohertz("scaling_cur_freq").map(|value| value / 1000),
        allowed: kilohertz("scaling_max_freq")? / 1000,
        most: kilohertz("cpuinfo_max_freq")? / 1000,
        governor: text(&folder.join("scaling_governor"))?,
    })
}

/// Folders in `folder` whose name passes, in order of their names.
fn folders(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| wanted(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

fn temperatures(thermal: &Path) -> Vec<(String, f64)> {
    folders(thermal, |name| name.starts_with("thermal_zone"))
        .into_iter()
        .filter_map(|zone| {
            let millidegrees: f64 = number(&zone.join("temp"))?;
            // A sensor that is off reads 0 or less.
            (millidegrees > 0.0).then_some(())?;
            let name = text(&zone.join("type")).unwrap_or_else(|| "thermal".into());
            Some((name, millidegrees / 1000.0))
        })
        .collect()
}

/// The Raspberry Pi's firmware tells of voltage, clock and heat; x86 counts how often a core was slowed down.
fn throttling(root: &Path, allowed: &[usize]) -> Vec<Throttling> {
    let mut found = Vec::new();
    let platform = root.join("sys/devices/platform");
    let firmware = |name: &str| name.ends_with("firmware");
    let places = folders(&platform, |name| name.starts_with("soc") || firmware(name));
    let bits = places.iter().find_map(|place| {
        let within = folders(place, firmware);
        let bits = within
            .iter()
            .chain([place])
            .find_map(|folder| text(&folder.join("get_throttled")))?;
        u32::from_str_radix(bits.trim_start_matches("0x"), 16).ok()
    });
    let causes = [Cause::Voltage, Cause::Clock, Cause::Throttled, Cause::Heat];
    if let Some(bits) = bits {
        // Bits 0 to 3 say what is so now, 16 to 19 what was since the start.
        for (bit, cause) in causes.into_iter().enumerate() {
            let (now, once) = ((bits >> bit) & 1 == 1, (bits >> (bit + 16)) & 1 == 1);
            if now || once {
                found.push(Throttling { cause, now });
            }
        }
    }
    // Kernels that leave the firmware's bits to a driver of their own have the voltage alone.
    let monitors = folders(&root.join("sys/class/hwmon"), |_| true);
    let low = monitors.iter().any(|monitor| {
        text(&monitor.join("name")).as_deref() == Some("rpi_volt")
            && number::<u8>(&monitor.join("in0_lcrit_alarm")) == Some(1)
    });
    if low && !found.iter().any(|one| one.cause == Cause::Voltage) {
        found.push(Throttling {
            cause: Cause::Voltage,
            now: true,
        });
    }
    let counted = allowed.iter().any(|cpu| {
        let folder = root.join(format!("sys/devices/system/cpu/cpu{cpu}/thermal_throttle"));
        ["core_throttle_count", "package_throttle_count"]
            .iter()
            .any(|name| number::<u64>(&folder.join(name)).is_some_and(|count| count > 0))
    });
    if counted && !found.iter().any(|one| one.cause == Cause::Heat) {
        found.push(Throttling {
            cause: Cause::Heat,
            now: false,
        });
    }
    found
}

/// AT_PAGESZ of the auxiliary vector: pairs of a key and a value, each as wide as a pointer.
fn page(vector: &[u8]) -> Option<u64> {
    const AT_PAGESZ: u64 = 6;
    const WIDTH: usize = size_of::<usize>();
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0_u64, |word, byte| (word << 8) | u64::from(*byte))
    };
    vector
        .chunks_exact(2 * WIDTH)
        .map(|pair| (word(&pair[..WIDTH]), word(&pair[WIDTH..])))
        .find_map(|(key, value)| (key == AT_PAGESZ).then_some(value))
}
