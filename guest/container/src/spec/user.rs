//! `user[:group]` to numbers, by a container's own `/etc/passwd` and `/etc/group`.
//!
//! Both files are the container's word, so they are read beneath its root, never through a magic link, only if they
//! are regular files, and only so much of them.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::AsFd,
};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};

/// Most of an account file that is read.
const MAX_FILE: u64 = 1024 * 1024;
/// Most supplementary groups that the kernel takes is 65536 (`NGROUPS_MAX`); nobody has that many.
const MAX_GROUPS: usize = 1024;

/// A user, in the kernel's terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("user {0:?} is not in the container's /etc/passwd")]
    UnknownUser(String),
    #[error("group {0:?} is not in the container's /etc/group")]
    UnknownGroup(String),
    #[error("the container's {path} cannot be read: {source}")]
    Read { path: &'static str, source: io::Error },
}

/// The container's users and groups.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads the files below `root`. A missing file is an empty one.
    pub(crate) fn read(root: impl AsFd) -> Result<Self, UserError> {
        let read =
            |path: &'static str| read_beneath(&root, path).map_err(|source| UserError::Read { path, source });
        Ok(Self { passwd: read("/etc/passwd")?, group: read("/etc/group")? })
    }

    /// Resolves `user[:group]`; empty is root. Numbers need not be in the files.
    pub(crate) fn identify(&self, text: &str) -> Result<Identity, UserError> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
            None => (text, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        let number = user.parse::<u32>().ok().filter(|uid| *uid != u32::MAX);
        let account = self.users().find(|account| account.name == user || number == Some(account.uid));
        let (uid, default_gid, name, home) = match (&account, number) {
            (Some(account), _) => (account.uid, account.gid, account.name, account.home),
            (None, Some(uid)) => (uid, 0, "", "/"),
            (None, None) => return Err(UserError::UnknownUser(user.into())),
        };
        let (gid, groups) = match group {
            Some(group) => (self.gid(group)?, Vec::new()),
            None => (default_gid, self.groups_of(name)),
        };
        let home = if home.is_empty() { "/" } else { home };
        Ok(Identity { uid, gid, groups, home: home.to_owned() })
    }

    fn users(&self) -> impl Iterator<Item = User<'_>> {
        self.passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
            Some(User { name, uid, gid, home: fields.nth(1).unwrap_or("") })
        })
    }

    /// Name, number and members.
    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            Some((fields.next()?, fields.nth(1)?.parse().ok()?, fields.next().unwrap_or("")))
        })
    }

    fn gid(&self, group: &str) -> Result<u32, UserError> {
        let number = group.parse::<u32>().ok().filter(|gid| *gid != u32::MAX);
        let known = self.groups().find(|(name, gid, _)| *name == group || number == Some(*gid));
        known.map(|(_, gid, _)| gid).or(number).ok_or_else(|| UserError::UnknownGroup(group.into()))
    }

    fn groups_of(&self, user: &str) -> Vec<u32> {
        let is_member = |members: &str| !user.is_empty() && members.split(',').any(|member| member == user);
        let mut groups: Vec<u32> =
            self.groups().filter(|(_, _, members)| is_member(members)).map(|(_, gid, _)| gid).collect();
        groups.sort_unstable();
        groups.dedup();
        groups.truncate(MAX_GROUPS);
        groups
    }
}

struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn read_beneath(root: impl AsFd, path: &str) -> io::Result<String> {
    // Not blocking: the name may belong to a pipe that nobody writes to.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(String::new()),
        Err(error) => return Err(error.into()),
    };
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::from(file).take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
