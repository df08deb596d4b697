//! What files and processes of this host say, below a root that tests make.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

#[derive(Debug)]
pub struct Host {
    root: PathBuf,
}

/// Who holds a UDP port.
#[derive(Debug, PartialEq, Eq)]
pub struct Holder {
    /// As in /proc: `00000000`, or an address byte by byte backwards.
    pub address: String,
    /// `None`: not to be seen, for lack of rights.
    pub process: Option<(u32, String)>,
}

impl Default for Host {
    fn default() -> Self {
        Self::at("/")
    }
}

impl Host {
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Text without the newline at its end.
    pub fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok().map(|text| text.trim_end().to_owned())
    }

    pub fn executable(&self, path: &str) -> bool {
        fs::metadata(self.path(path)).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    }

    /// When a file came to be what it is, seconds since 1970.
    pub fn changed(&self, path: &str) -> Option<i64> {
        fs::metadata(self.path(path)).ok().map(|file| file.ctime())
    }

    fn numbers(&self, folder: &Path) -> Vec<u32> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// The processes of a name; the kernel keeps 15 bytes of it.
    pub fn processes(&self, name: &str) -> Vec<u32> {
        let wanted: String = name.chars().take(15).collect();
        let all = self.numbers(&self.path("proc"));
        all.into_iter().filter(|pid| self.read(&format!("proc/{pid}/comm")).as_ref() == Some(&wanted)).collect()
    }

    /// When a process began, seconds since 1970 (proc(5): field 22 of stat, in ticks of 1/100 s since boot).
    pub fn began(&self, pid: u32) -> Option<i64> {
        let stat = self.read(&format!("proc/{pid}/stat"))?;
        // The name, in parentheses, may have blanks.
        let ticks: i64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
        let boot = self.read("proc/stat")?;
        let boot: i64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        Some(boot + ticks / 100)
    }

    /// Who has a UDP port (IPv4).
    pub fn udp_holders(&self, port: u16) -> Vec<Holder> {
        let table = self.read("proc/net/udp").unwrap_or_default();
        let suffix = format!(":{port:04X}");
        let mut holders = Vec::new();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(inode)) = (fields.get(1), fields.get(9)) else { continue };
            if let Some(address) = local.strip_suffix(suffix.as_str()) {
                holders.push(Holder { address: address.to_owned(), process: self.holder_of(inode) });
            }
        }
        holders
    }

    fn holder_of(&self, inode: &str) -> Option<(u32, String)> {
        let socket = format!("socket:[{inode}]");
        let has = |pid: &u32| {
            let files = fs::read_dir(self.path(&format!("proc/{pid}/fd"))).into_iter().flatten().flatten();
            files.into_iter().any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == socket.as_str()))
        };
        let pid = self.numbers(&self.path("proc")).into_iter().find(has)?;
        Some((pid, self.read(&format!("proc/{pid}/comm"))?))
    }

    pub fn default_routes(&self) -> usize {
        let table = self.read("proc/net/route").unwrap_or_default();
        table.lines().skip(1).filter(|line| line.split_whitespace().nth(1) == Some("00000000")).count()
    }

    /// Whether the running kernel has a module, or its code built in; `None`: nothing tells.
    pub fn has_module(&self, name: &str) -> Option<bool> {
        let release = self.read("proc/sys/kernel/osrelease")?;
        if self.exists(&format!("sys/module/{name}")) {
            return Some(true);
        }
        let lists = ["modules.builtin", "modules.dep"].map(|list| self.read(&format!("lib/modules/{release}/{list}")));
        if lists.iter().all(Option::is_none) {
            return None;
        }
        let file = format!("/{name}.ko");
        Some(lists.iter().flatten().any(|list| list.contains(&file)))
    }

    pub fn mtu(&self, link: &str) -> Option<u32> {
        self.read(&format!("sys/class/net/{link}/mtu"))?.parse().ok()
    }

    /// The links that are ports of a bridge.
    pub fn bridge_ports(&self, bridge: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(&format!("sys/class/net/{bridge}/brif"))).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Free bytes for root where a file is.
    pub fn free(&self, path: &str) -> Option<u64> {
        let file_system = nix::sys::statvfs::statvfs(&self.path(path)).ok()?;
        Some(file_system.blocks_free().saturating_mul(file_system.fragment_size()))
    }
}
