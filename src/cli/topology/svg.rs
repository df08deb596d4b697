//! The topology as a drawing for a document: a frame for each physical network, a card for each network, a box for each
//! guest. On a background of its own, so that it is read on light and dark pages.

use super::{Map, Network, Port};
use std::fmt::Write;

const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 20.0;
const GAP: f64 = 12.0;
const COLUMNS: usize = 4;
const HEAD: f64 = 44.0;
const LINE: f64 = 17.0;

const INK: &str = "#1f2933";
const FAINT: &str = "#52606d";
const EDGE: &str = "#9aa5b1";

#[derive(Default)]
struct Drawing {
    text: String,
}

/// Text for XML; characters that XML 1.0 cannot have become replacement characters.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// As much of a text as a width holds; a sans-serif's letters are taken for wide rather than narrow.
fn clipped(text: &str, width: f64, size: f64) -> String {
    let advance = |c: char| match c {
        'i' | 'j' | 'l' | 'I' | '.' | ',' | ':' | ' ' | '|' | '\'' => 0.34,
        'm' | 'w' | 'M' | 'W' | '@' => 0.95,
        c if c.is_ascii_uppercase() => 0.74,
        c if c.is_ascii() => 0.6,
        c if (c as u32) < 0x1100 => 0.75,
        _ => 1.05,
    };
    let total: f64 = text.chars().map(advance).sum();
    if total * size <= width {
        return text.to_owned();
    }
    let (mut used, mut kept) = (1.0, String::new());
    for c in text.chars() {
        used += advance(c);
        if used * size > width {
            break;
        }
        kept.push(c);
    }
    kept + "…"
}

impl Drawing {
    fn rect(&mut self, class: &str, [x, y, w, h]: [f64; 4], fill: &str, stroke: &str) {
        let _ = writeln!(
            self.text,
            r#"<rect class="{class}" x="{x}" y="{y}" width="{w}" height="{h}" rx="6" fill="{fill}" stroke="{stroke}"/>"#
        );
    }

    /// The whole text is in the title, which browsers show on hovering.
    fn words(&mut self, text: &str, [x, y, width]: [f64; 3], size: f64, style: &str) {
        let shown = escaped(&clipped(text, width, size));
        let title = if shown == escaped(text) { String::new() } else { format!("<title>{}</title>", escaped(text)) };
        let _ = writeln!(self.text, r#"<text x="{x}" y="{y}" font-size="{size}" {style}>{shown}{title}</text>"#);
    }

    fn port(&mut self, port: &Port, [x, y, w, h]: [f64; 4]) {
        let colour = match port.status.as_str() {
            "active" => "#2f9e44",
            "build" => "#e8a013",
            "error" => "#d6336c",
            _ => "#adb5bd",
        };
        self.rect("port", [x, y, w, h], "#ffffff", EDGE);
        let status = escaped(&port.status);
        let _ = writeln!(
            self.text,
            r#"<circle cx="{}" cy="{}" r="4.5" fill="{colour}"><title>{status}</title></circle>"#,
            x + 13.0,
            y + 17.0
        );
        let bold = format!(r#"fill="{INK}" font-weight="600""#);
        self.words(port.label(), [x + 24.0, y + 21.5, w - 34.0], 13.0, &bold);
        for (index, line) in port_lines(port).iter().enumerate() {
            let faint = if index == 0 { INK } else { FAINT };
            let at = [x + 12.0, y + 40.0 + index as f64 * LINE, w - 22.0];
            self.words(line, at, 11.5, &format!(r#"fill="{faint}""#));
        }
    }

    fn network(&mut self, network: &Network, x: f64, y: f64, width: f64) -> f64 {
        let height = network_height(network);
        self.rect("network", [x, y, width, height], "#eef2f7", EDGE);
        let _ = writeln!(
            self.text,
            r##"<rect x="{x}" y="{y}" width="6" height="{height}" rx="3" fill="{}"/>"##,
            if network.status == "error" { "#d6336c" } else { "#3b6fb6" }
        );
        let bold = format!(r#"fill="{INK}" font-weight="600""#);
        self.words(&network.name, [x + 18.0, y + 24.0, width * 0.55], 15.0, &bold);
        let mut about = vec![network.segment()];
        about.extend(network.bridge.as_ref().map(|bridge| format!("bridge {bridge}")));
        about.push(network.dns_domain.clone());
        about.push(format!("MTU {}", network.mtu));
        let right = format!(r#"fill="{FAINT}" text-anchor="end""#);
        self.words(&about.join(" · "), [x + width - 14.0, y + 24.0, width * 0.4], 11.5, &right);
        let mut below = y + HEAD;
        for subnet in &network.subnets {
            let faint = format!(r#"fill="{INK}""#);
            self.words(&format!("{}: {}", subnet.name, subnet.words()), [x + 18.0, below, width - 36.0], 12.0, &faint);
            below += LINE;
        }
        below += 2.0;
        for row in network.ports.chunks(COLUMNS) {
            let height = row_height(row);
            let w = (width - 18.0 - 14.0 - GAP * (COLUMNS - 1) as f64) / COLUMNS as f64;
            for (column, port) in row.iter().enumerate() {
                self.port(port, [x + 18.0 + column as f64 * (w + GAP), below, w, height]);
            }
            below += height + GAP;
        }
        height
    }
}

/// Below a port's name.
fn port_lines(port: &Port) -> Vec<String> {
    let mut lines: Vec<String> = port.addresses.iter().take(4).cloned().collect();
    if port.addresses.len() > 4 {
        lines.push(format!("and {} more", port.addresses.len() - 4));
    }
    lines.extend(port.trunk());
    let tap = port.tap.as_ref().map(|tap| format!(" · {tap}")).unwrap_or_default();
    lines.push(format!("{}{tap}", port.mac));
    lines
}

fn row_height(row: &[Port]) -> f64 {
    let lines = row.iter().map(|port| port_lines(port).len()).max().unwrap_or_default();
    32.0 + lines as f64 * LINE
}

fn network_height(network: &Network) -> f64 {
    let rows: f64 = network.ports.chunks(COLUMNS).map(|row| row_height(row) + GAP).sum();
    HEAD + network.subnets.len() as f64 * LINE + 2.0 + rows - if network.subnets.is_empty() { 6.0 } else { 4.0 }
}

pub fn draw(map: &Map) -> String {
    let mut drawing = Drawing::default();
    let mut y = MARGIN + 26.0;
    let bold = format!(r#"fill="{INK}" font-weight="600""#);
    drawing.words(&format!("Networks of {}", map.host), [MARGIN, MARGIN + 12.0, WIDTH - 2.0 * MARGIN], 18.0, &bold);
    for physical in &map.physical_networks {
        let inner: f64 = physical.networks.iter().map(|network| network_height(network) + GAP).sum();
        let height = 34.0 + inner + 2.0;
        drawing.rect("physical", [MARGIN, y, WIDTH - 2.0 * MARGIN, height], "#dfe7f1", "#3b6fb6");
        let bridge = physical.bridge.as_ref().map(|bridge| format!(" · bridge {bridge}")).unwrap_or_default();
        let text = format!("Physical network {}{bridge}", physical.name);
        drawing.words(&text, [MARGIN + 14.0, y + 22.0, WIDTH - 4.0 * MARGIN], 14.0, &bold);
        let mut below = y + 34.0;
        for network in &physical.networks {
            below += drawing.network(network, MARGIN + 14.0, below, WIDTH - 2.0 * MARGIN - 28.0) + GAP;
        }
        y += height + GAP;
    }
    for network in &map.local_networks {
        y += drawing.network(network, MARGIN, y, WIDTH - 2.0 * MARGIN) + GAP;
    }
    let height = y - GAP + MARGIN;
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="'DejaVu Sans', Verdana, sans-serif">
<rect width="{WIDTH}" height="{height}" rx="8" fill="#f7f9fb"/>
{}</svg>
"##,
        drawing.text
    )
}
