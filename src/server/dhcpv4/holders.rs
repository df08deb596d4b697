//! Which processes have a UDP port, for error texts.

use std::{fs, path::Path};

/// `name (pid N), …`: the other processes that have a socket of this thread's network namespace bound to the port, on
/// whatever interface (`table`: udp or udp6); "another process" where `/proc` does not tell.
pub(in crate::server) fn of_udp_port(table: &str, port: u16) -> String {
    let inodes = inodes(&fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default(), port);
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let numbered = processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())));
    let holders = numbered.filter(|(pid, path)| *pid != std::process::id() && has_socket(path, &inodes));
    let named = holders.map(|(pid, path)| {
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        format!("{} (pid {pid})", name.trim())
    });
    let named: Vec<String> = named.take(4).collect();
    if named.is_empty() { "another process".to_owned() } else { named.join(", ") }
}

/// From `/proc/net/udp`: `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`, ports in hex.
fn inodes(table: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let row = |line: &str| {
        let mut fields = line.split_whitespace();
        fields.nth(1)?.ends_with(&suffix).then(|| fields.nth(7).map(str::to_owned))?
    };
    table.lines().skip(1).filter_map(row).collect()
}

fn has_socket(process: &Path, inodes: &[String]) -> bool {
    let Ok(files) = fs::read_dir(process.join("fd")) else { return false };
    files.filter_map(|file| fs::read_link(file.ok()?.path()).ok()).any(|target| {
        let inode = target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.iter().any(|wanted| wanted == inode))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_the_inodes_of_a_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref\n\
             12: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 81234 2 0 0\n\
             13: 00000000:0044 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 81235 2 0 0\n";
        assert_eq!(super::inodes(table, 67), ["81234"]);
        assert!(super::inodes(table, 53).is_empty());
    }
}
