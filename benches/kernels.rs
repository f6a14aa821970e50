//! Every kernel of the registry on a problem of a picture's size; then the layers of Stable Diffusion 1.5 with their share
//! of what the processor can do at all.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use kiln_kernels::Kernels;
use kiln_kernels::registry::{self, LAYERS, Random, Size};

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500))
        .sample_size(10)
        .configure_from_args();
    for kernel in registry::kernels() {
        let mut problem = kernel.row.problem(&mut Random::new(1), Size::Typical);
        let mut group = criterion.benchmark_group(kernel.row.op);
        group.throughput(Throughput::Elements(problem.work()));
        group.bench_function(kernel.to_string(), |bencher| {
            bencher.iter(|| problem.run(kernel.kernels, 1))
        });
    }
    criterion.final_summary();
    // `cargo bench --bench kernels -- --test` runs each once.
    let runs = if std::env::args().any(|arg| arg == "--test") {
        1
    } else {
        5
    };
    layers(Kernels::detect(), runs);
}

/// The best of so many runs on one thread. A 3x3 convolution in tiles does 16 products for every 36 that are counted, so
/// its share may be above 1.
fn layers(kernels: Kernels, runs: usize) {
    let peak = registry::peak(kernels);
    match peak {
        Some(peak) => println!("{kernels:?}: at most {:.1} GMAC/s", peak / 1e9),
        None => println!("{kernels:?}: the peak is not known"),
    }
    for layer in LAYERS {
        let mut problem = layer.problem(&mut Random::new(1));
        let best = (0..runs).map(|_| {
            let start = Instant::now();
            problem.run(kernels, 1);
            problem.work() as f64 / start.elapsed().as_secs_f64()
        });
        let best = best.fold(0.0, f64::max);
        let share = peak.map_or(String::new(), |peak| format!("{:>6.2}", best / peak));
        println!("{:<30} {:>7.1} GMAC/s {share}", layer.name, best / 1e9);
    }
}
