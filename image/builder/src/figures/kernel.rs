//! What is in a kernel: its text, from the image itself, and its options, from the configuration beside it.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use object::{Object as _, ObjectSection as _, read::elf::ElfFile64};
use serde::Serialize;

use super::FiguresError;
use crate::lz4;

/// No kernel unpacks to more.
const MAX_UNPACKED: usize = 512 << 20;
/// Largest configuration or list that is read.
const MAX_TEXT: u64 = 4 << 20;
/// Options that no profile names: they are selected by others, or default.
const IMPLIED: &str = "implied";
/// What the linker fills a text up with (`int3`).
const FILLER: u8 = 0xcc;

/// Options that are built in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Options {
    pub total: u64,
    /// By the group that the profiles give them, `implied` for the rest.
    pub groups: BTreeMap<String, u64>,
}

/// Options of a resolved configuration that are `=y`.
pub(super) fn options(config: &Path, groups: &BTreeMap<String, String>) -> Result<Options, FiguresError> {
    let mut options = Options::default();
    for line in read_text(config)?.lines() {
        let Some(name) = line.strip_prefix("CONFIG_").and_then(|rest| rest.strip_suffix("=y")) else {
            continue;
        };
        let group = groups.get(name).map_or(IMPLIED, String::as_str);
        *options.groups.entry(group.to_owned()).or_default() += 1;
        options.total += 1;
    }
    Ok(options)
}

/// Which group each option has in the profiles of `folder` and of its `applications`.
pub(super) fn groups(folder: &Path) -> Result<BTreeMap<String, String>, FiguresError> {
    let mut groups = BTreeMap::new();
    for folder in [folder.to_owned(), folder.join("applications")] {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "toml"))
        {
            let malformed = |source| FiguresError::Profile { path: file.clone(), source: Box::new(source) };
            let profile: toml::Table = toml::from_str(&read_text(file)?).map_err(malformed)?;
            let tables = profile.get("options").and_then(toml::Value::as_table);
            for (group, options) in tables.into_iter().flatten() {
                for (name, _) in options.as_table().into_iter().flatten() {
                    groups.entry(name.clone()).or_insert_with(|| group.clone());
                }
            }
        }
    }
    Ok(groups)
}

/// Drivers in a list that the kernel's build made (`modules.builtin`).
pub(super) fn drivers(list: &Path) -> Result<Vec<String>, FiguresError> {
    let text = read_text(list)?;
    let name = |line: &str| {
        let file = line.strip_prefix("kernel/drivers/")?;
        Some(file.strip_suffix(".ko").unwrap_or(file).to_owned())
    };
    let mut drivers: Vec<String> = text.lines().filter_map(name).collect();
    drivers.sort();
    Ok(drivers)
}

/// Bytes of machine code in a kernel, bzImage or ELF: `.text` without what it is filled up with, and `.init.text`.
pub(super) fn text_bytes(image: &[u8]) -> Result<u64, FiguresError> {
    let unpacked = unpack(image)?;
    let elf: ElfFile64 = ElfFile64::parse(unpacked.as_slice()).map_err(FiguresError::Elf)?;
    let mut bytes = 0;
    for name in [".text", ".init.text"] {
        let section = elf.section_by_name(name).ok_or(FiguresError::NoText)?;
        let data = section.data().map_err(FiguresError::Elf)?;
        let end = data.iter().rposition(|byte| ![FILLER, 0].contains(byte)).map_or(0, |last| last + 1);
        bytes += end as u64;
    }
    Ok(bytes)
}

/// The kernel proper inside a bzImage (Documentation/arch/x86/boot.rst, `payload_offset`).
fn unpack(image: &[u8]) -> Result<Vec<u8>, FiguresError> {
    if image.starts_with(b"\x7fELF") {
        return Ok(image.to_vec());
    }
    let word = |at: usize| -> Option<usize> {
        let bytes = image.get(at..at + 4)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    let payload = || -> Option<&[u8]> {
        // No sectors stand for four, as in the days of LILO.
        let sectors = match *image.get(0x1f1)? {
            0 => 4,
            sectors => usize::from(sectors),
        };
        let start = (sectors + 1) * 512 + word(0x248)?;
        image.get(start..start.checked_add(word(0x24c)?)?)
    };
    let payload = payload().ok_or(FiguresError::NoPayload)?;
    let mut unpacked = Vec::new();
    match payload {
        // The kernel's build appends the size of what was packed, which no decoder of this frame expects.
        [0x02, 0x21, 0x4c, 0x18, .., _, _, _, _] => {
            unpacked =
                lz4::unpack(&payload[..payload.len() - 4], MAX_UNPACKED).map_err(FiguresError::Unpack)?;
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::stream::read::Decoder::new(payload).map_err(FiguresError::Unpack)?;
            decoder.window_log_max(31).map_err(FiguresError::Unpack)?;
            let limit = MAX_UNPACKED as u64;
            decoder.single_frame().take(limit).read_to_end(&mut unpacked).map_err(FiguresError::Unpack)?;
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let limit = MAX_UNPACKED as u64;
            let mut decoder = lzma_rust2::XzReader::new(payload, false).take(limit);
            decoder.read_to_end(&mut unpacked).map_err(FiguresError::Unpack)?;
        }
        _ => return Err(FiguresError::Compression),
    }
    Ok(unpacked)
}

pub(super) fn read_text(path: &Path) -> Result<String, FiguresError> {
    let failed = |source| FiguresError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    fs::File::open(path).map_err(failed)?.take(MAX_TEXT).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_counted_by_group() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("kernel.config");
        fs::write(
            &config,
            "CONFIG_EPOLL=y\nCONFIG_SLUB=y\n# CONFIG_KEXEC is not set\nCONFIG_NR_CPUS=256\nCONFIG_E=m\n",
        )
        .unwrap();
        fs::write(
            folder.path().join("base.toml"),
            "summary = \"x\"\n[options.events]\nEPOLL = { set = true, why = \"x\" }\n",
        )
        .unwrap();
        let options = options(&config, &groups(folder.path()).unwrap()).unwrap();
        assert_eq!(options.total, 2);
        assert_eq!(options.groups, BTreeMap::from([("events".into(), 1), (IMPLIED.into(), 1)]));
    }

    #[test]
    fn drivers_are_those_below_drivers() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("modules.builtin");
        fs::write(
            &list,
            "kernel/fs/ext4/ext4.ko\nkernel/drivers/net/virtio_net.ko\nkernel/drivers/block/loop.ko\n",
        )
        .unwrap();
        assert_eq!(drivers(&list).unwrap(), ["block/loop", "net/virtio_net"]);
    }

    #[test]
    fn a_payload_is_found_and_unpacked() {
        let kernel = b"kernel".repeat(1000);
        let zstd = zstd::bulk::compress(&kernel, 1).unwrap();
        let lz4 = lz4::pack(&kernel).unwrap();
        // The kernel's build appends the size of what was packed.
        for payload in
            [[zstd, 6000u32.to_le_bytes().into()].concat(), [lz4, 6000u32.to_le_bytes().into()].concat()]
        {
            let mut image = vec![0; 0x400];
            image[0x1f1] = 1;
            image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
            image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
            image.resize(0x400 + 16, 0);
            image.extend_from_slice(&payload);
            assert!(unpack(&image).unwrap() == kernel);
            image.truncate(0x420);
            assert!(matches!(unpack(&image), Err(FiguresError::NoPayload)));
        }
        assert!(matches!(unpack(b"MZ"), Err(FiguresError::NoPayload)));
    }
}
