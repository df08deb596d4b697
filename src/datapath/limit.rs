use std::fmt;

/// Which way a link's traffic goes, as the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// What the host sends: of a tap, what its guest is sent.
    Out,
    /// What comes in: of a tap, what its guest sends.
    In,
}

impl Way {
    pub const BOTH: [Way; 2] = [Way::Out, Way::In];
}

/// What bounds a link's traffic in one direction (tc(8)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limit {
    /// Ours, known by its handle.
    Ours(Bandwidth),
    /// Somebody else's queueing discipline, of this kind: libvirt's for `<bandwidth>`, say. Only observed.
    Others(String),
}

/// A rate, and what may go at once.
#[derive(Debug, Clone, Copy)]
pub struct Bandwidth {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes.
    pub burst: u64,
}

impl PartialEq for Bandwidth {
    /// The kernel keeps a burst as the time that it takes, in units of 64 ns or so: what is read back is a little off.
    fn eq(&self, other: &Self) -> bool {
        self.rate == other.rate && self.burst.abs_diff(other.burst) <= self.burst / 100 + self.rate / 1_000_000 + 2
    }
}

impl Eq for Bandwidth {}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} kbit/s, burst {} kB", self.rate / 125, self.burst.div_ceil(1000))
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Out => "to the guest",
            Way::In => "from the guest",
        })
    }
}
