//! What `postern-image` prints: each result once as lines for people and once as JSON.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Context as _;
use postern_builder::{build::Image, cpio, kernel::Kernel, lz4, modules::Class};
use serde_json::{Value, json};

/// More than any initramfs of ours unpacks to.
const MAX_UNPACKED: usize = 512 << 20;

pub(crate) struct Report {
    pub(crate) text: String,
    pub(crate) json: Value,
}

/// One image, and what became of it.
pub(crate) fn image(state: &str, directory: &Path, image: &Image) -> Report {
    let manifest = &image.manifest;
    let mut text = format!("image {} ({state})\n", directory.display());
    for (what, file) in [("kernel", &manifest.kernel), ("initramfs", &manifest.initramfs)] {
        let _ = writeln!(text, "  {what:<10} {:>9}  {}  {}", size(file.size), file.sha256, file.file);
    }
    let agent = &image.lock.agent;
    let _ = writeln!(text, "  {:<10} {:>9}  {}", "agent", size(agent.size), agent.sha256);
    let _ =
        writeln!(text, "  kernel release {}, {} modules", manifest.kernel_release, image.lock.modules.len());
    let json = json!({ "state": state, "directory": directory, "image": manifest, "inputs": image.lock });
    Report { text, json }
}

/// An image and what is in its initramfs.
pub(crate) fn inspect(directory: &Path, what: &Image) -> anyhow::Result<Report> {
    let mut report = image("intact", directory, what);
    let path = directory.join(&what.manifest.initramfs.file);
    let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let archive =
        lz4::unpack(&bytes, MAX_UNPACKED).with_context(|| format!("unpacking {}", path.display()))?;
    let entries = cpio::list(&archive).with_context(|| format!("reading {}", path.display()))?;
    let _ = writeln!(report.text, "  command line   {}", what.manifest.cmdline);
    for package in &what.lock.kernel.packages {
        let _ = writeln!(report.text, "  from package   {} {}", package.name, package.version);
    }
    let _ = writeln!(report.text, "  modules, in order of loading");
    for module in &what.lock.modules {
        let class = match module.class {
            Class::Always => "",
            Class::Mmio => "  (on a platform bus)",
            Class::Pci => "  (on PCI)",
            Class::Tee => "  (in a TEE)",
            Class::Disk => "  (with an image disk)",
        };
        let _ = writeln!(report.text, "    {}{class}", module.file);
    }
    let _ = writeln!(report.text, "  initramfs, unpacked {}", size(archive.len() as u64));
    for entry in &entries {
        let _ = writeln!(report.text, "    {:06o} {:>9}  /{}", entry.mode, entry.content.len(), entry.path);
    }
    let entries: Vec<Value> = entries
        .iter()
        .map(|e| json!({ "path": format!("/{}", e.path), "mode": format!("{:06o}", e.mode), "size": e.content.len() }))
        .collect();
    report.json["initramfs"] = Value::Array(entries);
    Ok(report)
}

/// A kernel that was fetched.
pub(crate) fn kernel(kernel: &Kernel, image: &Path, modules: &Path) -> Report {
    let (image_path, modules_path) = (image.display(), modules.display());
    let text = format!(
        "kernel {}\nnext: postern-image build --kernel {image_path} --modules {modules_path} --agent FILE --out DIRECTORY\n",
        kernel.release
    );
    let json = json!({ "release": kernel.release, "packages": kernel.packages, "kernel": image, "modules": modules });
    Report { text, json }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10),
    }
}
