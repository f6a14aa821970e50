//! Every kernel of the registry on a problem of a picture's size.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use kiln_kernels::registry::{self, Random, Size};

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
}
