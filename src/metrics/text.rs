//! What Prometheus reads: its text format 0.0.4, and OpenMetrics 1.0
//! (<https://prometheus.io/docs/instrumenting/exposition_formats>, <https://openmetrics.io>).

use crate::server::Histogram;
use std::fmt::{Display, Write};

/// Which of the two is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Families of metrics, one after another.
#[derive(Debug)]
pub struct Exposition {
    format: Format,
    text: String,
    name: &'static str,
    kind: Kind,
}

// Writing to a String cannot fail: what `write!` gives is dropped throughout.

impl Exposition {
    pub fn new(format: Format) -> Self {
        Self { format, text: String::new(), name: "", kind: Kind::Gauge }
    }

    /// Begins a family. A counter's name is without `_total`; `unit` is how the name ends then.
    pub fn family(&mut self, name: &'static str, kind: Kind, unit: Option<&str>, help: &str) {
        (self.name, self.kind) = (name, kind);
        let suffix = self.suffix(self.format == Format::Prometheus);
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(self.text, "# TYPE {name}{suffix} {kind}");
        if let (Some(unit), Format::OpenMetrics) = (unit, self.format) {
            let _ = writeln!(self.text, "# UNIT {name} {unit}");
        }
        let _ = writeln!(self.text, "# HELP {name}{suffix} {help}");
    }

    /// A value of the family.
    pub fn value(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let suffix = self.suffix(true);
        self.sample(suffix, labels, value);
    }

    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        let cumulative = histogram.cumulative();
        let bounds = Histogram::BOUNDS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(cumulative) {
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("le", bound.as_str())]).collect();
            self.sample("_bucket", &labels, count);
        }
        self.sample("_sum", labels, histogram.sum());
        self.sample("_count", labels, cumulative[Histogram::BOUNDS.len()]);
    }

    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn suffix(&self, sample: bool) -> &'static str {
        if self.kind == Kind::Counter && sample { "_total" } else { "" }
    }

    fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "{}{suffix}", self.name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{label}=\"", if at == 0 { '{' } else { ',' });
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format) -> String {
        let mut text = Exposition::new(format);
        text.family("vmfabric_sent_bytes", Kind::Counter, Some("bytes"), "What was sent.");
        text.value(&[("port", "a\"b\\\n")], 7);
        text.finish()
    }

    #[test]
    fn both_formats_are_written() {
        let sample = "vmfabric_sent_bytes_total{port=\"a\\\"b\\\\\\n\"} 7\n";
        let classic = format!(
            "# TYPE vmfabric_sent_bytes_total counter\n# HELP vmfabric_sent_bytes_total What was sent.\n{sample}"
        );
        assert_eq!(written(Format::Prometheus), classic);
        let open = format!(
            "# TYPE vmfabric_sent_bytes counter\n# UNIT vmfabric_sent_bytes bytes\n# HELP vmfabric_sent_bytes What was \
             sent.\n{sample}# EOF\n"
        );
        assert_eq!(written(Format::OpenMetrics), open);
    }
}
