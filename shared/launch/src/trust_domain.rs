//! Who shares a pod's kernel, and what may follow from it: a guest whose kernel works around the CPU's leaks keeps its
//! processes apart, one without is a single trust domain, and that is for pods of one owner alone.
//!
//! The owner asks before a launch, the guest before it opens its doors, with the same function over the same two facts:
//! how many owners the init data names, and what the command line says. Both are measured.

use crate::shape::Mitigations;

/// What a launch without mitigations adds to the command line. One word: on x86 it stands for every workaround the kernel
/// has, page table isolation, retpolines, flushes of buffers and caches, and what later kernels add.
///
/// Nothing else is taken away with it. Zeroed allocations, W^X, hardened copies and address space randomisation guard
/// against errors in the kernel, which one owner's pod has like every other.
pub const MITIGATIONS_OFF: &str = "mitigations=off";

/// Words that turn a single workaround off, from Documentation/admin-guide/kernel-parameters.txt of Linux 6.12. No launch
/// of ours has them; a guest that finds one is what its words make it.
const ALSO_OFF: &[&str] = &[
    "gather_data_sampling=off",
    "indirect_target_selection=off",
    "kvm-intel.vmentry_l1d_flush=never",
    "l1d_flush=off",
    "l1tf=off",
    "mds=off",
    "mmio_stale_data=off",
    "no_stf_barrier",
    "nopti",
    "nospec_store_bypass_disable",
    "nospectre_bhb",
    "nospectre_v1",
    "nospectre_v2",
    "pti=off",
    "reg_file_data_sampling=off",
    "retbleed=off",
    "spec_rstack_overflow=off",
    "spec_store_bypass_disable=off",
    "spectre_bhi=off",
    "spectre_v2=off",
    "spectre_v2_user=off",
    "srbds=off",
    "tsa=off",
    "tsx_async_abort=off",
    "vmscape=off",
];

/// Several owners without mitigations: each could read what the others have in the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a pod of {owners} owners keeps the CPU's mitigations: without them each could read the memory of the others"
)]
pub struct SeveralOwners {
    owners: usize,
}

/// Whether a pod of so many owners may run with these mitigations.
pub fn admit(owners: usize, mitigations: Mitigations) -> Result<(), SeveralOwners> {
    match (mitigations, owners) {
        (Mitigations::On, _) | (Mitigations::Off, 0..=1) => Ok(()),
        (Mitigations::Off, _) => Err(SeveralOwners { owners }),
    }
}

/// What a command line says of mitigations. One word against them is enough, wherever it stands and whatever follows: an
/// exact reading would have to know which of two words the kernel takes.
pub fn mitigations(command_line: &str) -> Mitigations {
    let against = |word: &str| word == MITIGATIONS_OFF || ALSO_OFF.contains(&word);
    // The kernel takes '-' for '_' in names, and quotes around a value.
    let plain = |word: &str| word.replace('"', "").replace('-', "_");
    let found = command_line.split_ascii_whitespace().any(|word| {
        let word = plain(word);
        against(&word) || ALSO_OFF.iter().any(|known| plain(known) == word)
    });
    if found { Mitigations::Off } else { Mitigations::On }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_may_choose_and_several_may_not() {
        for owners in [1, 2, 7] {
            assert_eq!(admit(owners, Mitigations::On), Ok(()));
        }
        assert_eq!(admit(1, Mitigations::Off), Ok(()));
        for owners in [2, 7] {
            assert_eq!(admit(owners, Mitigations::Off), Err(SeveralOwners { owners }));
        }
    }

    #[test]
    fn a_word_against_mitigations_is_found_wherever_it_stands() {
        for line in [
            "mitigations=off",
            "quiet mitigations=off panic=-1",
            "mitigations=off mitigations=auto",
            "quiet nopti",
            "tsx-async-abort=off",
            "spectre_v2=\"off\"",
            "\"mitigations=off\"",
        ] {
            assert_eq!(mitigations(line), Mitigations::Off, "{line}");
        }
    }

    #[test]
    fn other_words_are_not_taken_for_one() {
        for line in
            ["", "quiet", "mitigations=auto", "mitigations=auto,nosmt", "xmitigations=off", "panic=-1"]
        {
            assert_eq!(mitigations(line), Mitigations::On, "{line}");
        }
    }
}
