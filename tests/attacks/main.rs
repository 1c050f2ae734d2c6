//! One attack, one file. Each shows the honest case working and the attack failing, against the agent that ships.
//!
//! The host of these tests owns the machine: it sends any bytes to the host endpoint, as often as it likes. What the
//! owner has in the pod must stay as it was, and the owner must be able to read what was tried.

mod canary_in_output;
mod copy_file;
mod denied_flood;
mod destroy_under_streams;
mod diagnostic_data;
mod fail_open;
mod frame_abuse;
mod frozen_network;
mod ghost_container;
mod guest_hooks;
mod host_asks_for_everything;
mod host_devices;
mod host_signals;
mod host_specification;
mod interface_tricks;
mod kernel_modules;
mod memory_time_entropy;
mod no_handover;
mod owner_names;
mod packet_filter;
mod protobuf_bombs;
mod sanitised_answers;
mod second_sandbox;
mod stdio_lengths;
mod straddling_handover;
mod wait_steals_exit;

use postern_tests::host_endpoint::{kata, raw, rig, workload};
