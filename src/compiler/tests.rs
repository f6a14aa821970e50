//! The whole way, on the smallest models.

use super::*;
use kiln_package::Package;
use std::cell::RefCell;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A folder as optimum exports it, of one variant's parts.
fn source(variant: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&fixtures().join(variant), folder.path());
    for part in ["tokenizer", "scheduler"] {
        copy(&fixtures().join(part), &folder.path().join(part));
    }
    folder
}

fn run(options: &CompileOptions) -> Result<Compiled, CompileError> {
    compile(options, &mut |_| ())
}

/// Whether there is a program of the graph, of any stage, at that size.
fn has(package: &Package, graph: GraphKind, height: u32, width: u32) -> bool {
    package
        .programs()
        .any(|p| (p.graph(), p.height(), p.width()) == (graph, height, width))
}

#[test]
fn a_package_holds_every_program_and_the_card() {
    let folder = source("ts17");
    let own = r#"{"name": "tiny", "license": "MIT", "defaults": {"steps": 4, "width": 32, "height": 16}, "sources": ["x"]}"#;
    std::fs::write(folder.path().join("card.json"), own).unwrap();
    let output = folder.path().join("tiny.kiln");
    let mut options = CompileOptions::new(folder.path(), &output);
    options.sizes = vec![(32, 32), (32, 16), (32, 32)];
    let heard = RefCell::new(Vec::new());
    let compiled = compile(&options, &mut |p| {
        heard.borrow_mut().push(match p {
            Progress::Reading(part) => part.to_owned(),
            Progress::Pass { graph, report } => format!("{graph} {}", report.name),
            Progress::Graph { .. } => "graph".to_owned(),
            Progress::Measuring(measured) => format!("measuring {}", measured.part),
            Progress::Hashed { .. } | Progress::Warning(_) | Progress::Preview => return,
            Progress::Plan(_) => "plan".to_owned(),
        });
    })
    .unwrap();
    assert_eq!(compiled.sizes, [(32, 32), (32, 16)]);
    let heard = heard.into_inner();
    for expected in ["unet", "vae_encoder", "text_encoder fuse-attention", "plan"] {
        assert!(heard.iter().any(|h| h == expected), "{heard:?}");
    }
    let bytes = std::fs::read(&output).unwrap();
    assert_eq!(compiled.bytes, bytes.len() as u64);
    let package = Package::open(&bytes).unwrap();
    package.verify_all().unwrap();
    assert!(has(&package, GraphKind::TextEncoder, 0, 0));
    for kind in [
        GraphKind::Unet,
        GraphKind::VaeDecoder,
        GraphKind::VaeEncoder,
    ] {
        assert!(has(&package, kind, 32, 32) && has(&package, kind, 16, 32));
    }
    let card: serde_json::Value = serde_json::from_str(package.card()).unwrap();
    assert_eq!(card["name"], "tiny");
    assert_eq!(card["precision"], "int8");
    assert_eq!(card["vae_scaling_factor"], 0.18215);
    let defaults = serde_json::json!({"steps": 4, "width": 32, "height": 16, "guidance_scale": 7.5, "sampler": "ddim"});
    assert_eq!(card["defaults"], defaults);
    assert_eq!(
        card["text"],
        serde_json::json!({"max_length": 77, "bos": 598, "eos": 599, "pad": 599, "dim": 32})
    );
    let files = card["sources"].as_array().unwrap();
    let unet = files
        .iter()
        .find(|f| f["path"] == "unet/model.onnx")
        .unwrap();
    assert_eq!(unet["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(
        package.scheduler(),
        std::fs::read_to_string(folder.path().join("scheduler/scheduler_config.json")).unwrap()
    );
    // The same source, the same bytes.
    run(&options).unwrap();
    assert_eq!(std::fs::read(&output).unwrap(), bytes);
    assert!(
        std::fs::read_dir(folder.path()).unwrap().all(|e| !e
            .unwrap()
            .path()
            .to_string_lossy()
            .contains("partial"))
    );
}

#[test]
fn without_sizes_it_is_the_models_own() {
    let folder = source("dyn20");
    std::fs::remove_dir_all(folder.path().join("vae_encoder")).unwrap();
    let output = folder.path().join("out.kiln");
    assert_eq!(
        run(&CompileOptions::new(folder.path(), &output))
            .unwrap()
            .sizes,
        [(32, 32)]
    );
    let bytes = std::fs::read(&output).unwrap();
    let package = Package::open(&bytes).unwrap();
    assert!(has(&package, GraphKind::Unet, 32, 32));
    assert!(!has(&package, GraphKind::VaeEncoder, 32, 32));
    let card: serde_json::Value = serde_json::from_str(package.card()).unwrap();
    let paths: Vec<&str> = card["sources"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|f| f["path"].as_str())
        .collect();
    assert!(
        paths.contains(&"unet/model.onnx.data") && paths.is_sorted(),
        "{paths:?}"
    );
}

#[test]
fn a_report_says_what_each_layer_is_and_the_package_has_its_stages() {
    let folder = source("ts17");
    let (output, path) = (
        folder.path().join("out.kiln"),
        folder.path().join("report.json"),
    );
    let mut options = CompileOptions::new(folder.path(), &output);
    options.report = Some(path.clone());
    let heard = RefCell::new(Vec::new());
    options.dump = Some("staging".into());
    let mut finished = 0;
    compile(&options, &mut |p| match p {
        Progress::Measuring(measured) if measured.done == 0 => {
            heard.borrow_mut().push(measured.part.to_owned())
        }
        Progress::Measuring(measured) => {
            assert!(measured.done <= measured.total);
            finished += usize::from(measured.done == measured.total);
        }
        Progress::Graph { graph, .. } => heard.borrow_mut().push(graph.inputs.len().to_string()),
        _ => (),
    })
    .unwrap();
    assert_eq!(
        heard.borrow()[..4],
        ["text_encoder", "unet", "vae_decoder", "vae_encoder"]
    );
    // The text encoder in two forms, the UNet in three stages, the two halves of the VAE.
    assert_eq!(heard.borrow().len(), 4 + 7);
    assert_eq!(finished, 4);
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let unet = &report["graphs"][1];
    let layers = unet["layers"].as_array().unwrap();
    let precision =
        |name: &str| layers.iter().find(|l| l["name"] == name).unwrap()["precision"].clone();
    assert_eq!(precision("conv_in"), "f16");
    assert_eq!(precision("down_blocks.0.resnets.0.conv1"), "int8");
    assert!(
        unet["decibels"]
            .as_array()
            .unwrap()
            .iter()
            .all(|db| db.as_f64().unwrap() > 20.0),
        "{}",
        unet["decibels"]
    );

    let bytes = std::fs::read(&output).unwrap();
    let package = Package::open(&bytes).unwrap();
    for stage in [Stage::Prompt, Stage::Timestep, Stage::Step] {
        let program = package.find(GraphKind::Unet, stage, 32, 32).unwrap();
        assert_eq!(
            program.max_chunks(),
            if stage == Stage::Timestep { 1 } else { 3 },
            "{stage:?}"
        );
    }
    assert!(
        package
            .find(GraphKind::Unet, Stage::Whole, 32, 32)
            .is_none()
    );
}

#[test]
fn mistakes_are_told_and_nothing_is_written() {
    let folder = source("ts14");
    let output = folder.path().join("out.kiln");
    let with = |change: &dyn Fn(&mut CompileOptions)| {
        let mut options = CompileOptions::new(folder.path(), &output);
        change(&mut options);
        let error = run(&options).unwrap_err().to_string();
        assert!(!output.exists());
        assert!(!error.contains('\n'), "{error}");
        error
    };
    let error = with(&|o| o.sizes = vec![(32, 32), (33, 32), (0, 8)]);
    assert!(
        error.contains("33x32, 0x8") && error.contains("multiples of 8"),
        "{error}"
    );
    assert!(with(&|o| o.sizes = vec![(1 << 40, 32)]).contains("1099511627776x32"));
    let error = with(&|o| o.dump = Some("fuse-everything".into()));
    assert!(
        error.contains("fuse-everything") && error.contains("fuse-attention"),
        "{error}"
    );
    let report = |o: &mut CompileOptions| {
        (o.report, o.precision) = (Some("/nowhere/report".into()), Precision::F16)
    };
    assert!(with(&report).contains("only --precision int8"));
    let gain = |o: &mut CompileOptions| (o.f16_gain, o.precision) = (Some(1.0), Precision::F32);
    assert!(with(&gain).contains("only --precision int8"));
    assert!(with(&|o| o.f16_gain = Some(f64::NAN)).contains("f16 gain"));
    assert!(with(&|o| o.report = Some("/nowhere/report".into())).contains("/nowhere/report"));
    assert!(with(&|o| o.max_chunks = 0).contains("from 1 to 64"));
    assert!(with(&|o| o.stop_after = Some(99)).contains("there are 15 passes"));
    assert!(with(&|o| o.source = "/nowhere".into()).contains("/nowhere"));
    let error = with(&|o| o.output = "/nowhere/out.kiln".into());
    assert!(error.contains("/nowhere/out.kiln"), "{error}");
    std::fs::remove_file(folder.path().join("tokenizer/merges.txt")).unwrap();
    assert!(with(&|_| ()).contains("merges.txt: not found"));
    std::fs::remove_dir_all(folder.path().join("unet")).unwrap();
    copy(
        &fixtures().join("tokenizer"),
        &folder.path().join("tokenizer"),
    );
    let error = with(&|_| ());
    assert!(error.contains("unet/model.onnx: not found"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_old_file() {
    let folder = source("ts14");
    let output = folder.path().join("out.kiln");
    std::fs::write(&output, "old").unwrap();
    // Writing to /dev/full fails as on a full disk.
    let error = output::replace(&output, &Cancel::default(), |file| {
        use std::io::Write;
        let mut full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .map_err(kiln_package::WriteError::Io)?;
        file.write_all(b"half")
            .map_err(kiln_package::WriteError::Io)?;
        Ok(full.write_all(b"x").map_err(kiln_package::WriteError::Io)?)
    });
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("out.kiln") && error.contains("No space left"),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(&output).unwrap(), "old");
    assert!(
        std::fs::read_dir(folder.path()).unwrap().all(|e| !e
            .unwrap()
            .path()
            .to_string_lossy()
            .contains("partial"))
    );
}

#[test]
fn stopping_early_gives_the_graphs_and_no_file() {
    let folder = source("ts14");
    let output = folder.path().join("out.kiln");
    let mut options = CompileOptions::new(folder.path(), &output);
    options.stop_after = Some(4);
    let graphs = RefCell::new(Vec::new());
    compile(&options, &mut |p| {
        if let Progress::Graph { pass, graph } = p {
            graphs.borrow_mut().push((
                pass.to_owned(),
                Graph::parse(&graph.to_string()).unwrap().name,
            ));
        }
    })
    .unwrap();
    let names = ["text_encoder", "unet", "vae_decoder", "vae_encoder"];
    assert_eq!(
        graphs.into_inner(),
        names.map(|n| ("lower-matmul".to_owned(), n.to_owned()))
    );
    assert!(!output.exists());
}

/// A hub's cache: every file is a link to a blob whose name says nothing, external data included.
#[cfg(unix)]
#[test]
fn files_behind_links_are_found() {
    let blobs = source("dyn20");
    let snapshot = tempfile::tempdir().unwrap();
    for part in [
        "text_encoder",
        "unet",
        "vae_encoder",
        "vae_decoder",
        "tokenizer",
        "scheduler",
    ] {
        std::fs::create_dir(snapshot.path().join(part)).unwrap();
        for entry in std::fs::read_dir(blobs.path().join(part)).unwrap() {
            let entry = entry.unwrap();
            let blob = blobs.path().join(format!(
                "{part}-{}",
                entry.file_name().to_string_lossy().replace('.', "-")
            ));
            std::fs::rename(entry.path(), &blob).unwrap();
            std::os::unix::fs::symlink(&blob, snapshot.path().join(part).join(entry.file_name()))
                .unwrap();
        }
    }
    let output = snapshot.path().join("out.kiln");
    run(&CompileOptions::new(snapshot.path(), &output)).unwrap();
    let plain = source("dyn20");
    let expected = plain.path().join("out.kiln");
    run(&CompileOptions::new(plain.path(), &expected)).unwrap();
    let weights = |path: &Path| {
        Package::open(&std::fs::read(path).unwrap())
            .unwrap()
            .weights()
            .to_vec()
    };
    assert!(weights(&output) == weights(&expected));
}
