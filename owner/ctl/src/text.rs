//! Text that somebody else wrote, made safe for a terminal: a container's output and a guest's messages may hold escape
//! sequences that move the cursor, set the clipboard or type for the user.
//!
//! [`clean`] is for one line; [`Sanitiser`] for a stream in pieces. Both keep what a reader needs and show the rest in
//! caret notation. Colours (SGR) survive in streams unless told otherwise.

/// One line of foreign text: control characters, escapes and direction overrides become visible.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' => out.push(' '),
            c => push_visible(&mut out, c),
        }
    }
    out
}

/// Characters that are not drawn but change how others are.
fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn push_visible(out: &mut String, c: char) {
    match c {
        '\t' => out.push('\t'),
        '\0'..='\x1f' => {
            out.push('^');
            out.push(char::from(b'@' + c as u8));
        }
        '\x7f' => out.push_str("^?"),
        c if c.is_control() || is_deceptive(c) => out.extend(c.escape_unicode()),
        c => out.push(c),
    }
}

/// Longest SGR sequence that is passed on, in bytes.
const MAX_SGR: usize = 32;

/// Whether a stream's colours reach the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colours {
    Keep,
    Drop,
}

/// Makes a stream of bytes safe for a terminal, piece by piece.
#[derive(Debug)]
pub(crate) struct Sanitiser {
    colours: Colours,
    state: State,
    /// Bytes of a UTF-8 character or an escape sequence whose end has not come yet.
    held: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Plain,
    /// A carriage return that may begin a line end.
    Return,
    Escape,
    Sgr,
}

impl Sanitiser {
    pub(crate) fn new(colours: Colours) -> Self {
        Self { colours, state: State::Plain, held: Vec::new() }
    }

    /// Appends the safe form of `input` to `out`.
    pub(crate) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        for &byte in input {
            self.byte(byte, out);
        }
    }

    /// The stream has ended: what was held back comes out, and colours are reset.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        match self.state {
            State::Plain => self.flush_held(out),
            State::Return => out.extend_from_slice(b"^M"),
            State::Escape | State::Sgr => self.give_up(out),
        }
        self.state = State::Plain;
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        match self.state {
            State::Plain => self.plain(byte, out),
            State::Return => {
                self.state = State::Plain;
                match byte {
                    b'\n' => out.extend_from_slice(b"\r\n"),
                    _ => {
                        out.extend_from_slice(b"^M");
                        self.plain(byte, out);
                    }
                }
            }
            State::Escape if byte == b'[' => {
                self.held.push(byte);
                self.state = State::Sgr;
            }
            State::Escape => {
                self.give_up(out);
                self.plain(byte, out);
            }
            State::Sgr => self.sgr(byte, out),
        }
    }

    fn sgr(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            b'0'..=b'9' | b';' | b':' if self.held.len() < MAX_SGR => self.held.push(byte),
            b'm' => {
                if self.colours == Colours::Keep {
                    out.push(0x1b);
                    out.extend_from_slice(&self.held);
                    out.push(b'm');
                }
                self.held.clear();
                self.state = State::Plain;
            }
            _ => {
                self.give_up(out);
                self.plain(byte, out);
            }
        }
    }

    /// The sequence was no colour: its introducer becomes visible and its bytes are text.
    fn give_up(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"^[");
        out.append(&mut self.held);
        self.state = State::Plain;
    }

    fn plain(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            0x80.. => return self.multibyte(byte, out),
            _ => self.flush_held(out),
        }
        match byte {
            b'\n' | b'\t' => out.push(byte),
            b'\r' => self.state = State::Return,
            0x1b => self.state = State::Escape,
            0..0x20 | 0x7f => {
                let mut text = String::new();
                push_visible(&mut text, char::from(byte));
                out.extend_from_slice(text.as_bytes());
            }
            _ => out.push(byte),
        }
    }

    fn multibyte(&mut self, byte: u8, out: &mut Vec<u8>) {
        if byte >= 0xc0 {
            self.flush_held(out);
        }
        self.held.push(byte);
        match std::str::from_utf8(&self.held) {
            Ok(text) => {
                let mut visible = String::new();
                text.chars().for_each(|c| push_visible(&mut visible, c));
                out.extend_from_slice(visible.as_bytes());
                self.held.clear();
            }
            Err(error) if error.error_len().is_some() => self.flush_held(out),
            Err(_) => {}
        }
    }

    /// Bytes that are no UTF-8: some terminals read 0x80 to 0x9f as controls.
    fn flush_held(&mut self, out: &mut Vec<u8>) {
        for byte in self.held.drain(..) {
            out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sanitise(pieces: &[&[u8]], colours: Colours) -> String {
        let mut sanitiser = Sanitiser::new(colours);
        let mut out = Vec::new();
        pieces.iter().for_each(|piece| sanitiser.push(piece, &mut out));
        sanitiser.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn keeps_text_lines_and_colours() {
        let text = "plain \t\x1b[1;31mred\x1b[0m äöü 日本\r\nnext\n";
        assert_eq!(sanitise(&[text.as_bytes()], Colours::Keep), text);
        assert_eq!(sanitise(&[text.as_bytes()], Colours::Drop), "plain \tred äöü 日本\r\nnext\n");
    }

    #[test]
    fn clipboard_title_cursor_and_paste_are_only_shown() {
        for attack in [
            "\x1b]52;c;ZXZpbA==\x07",
            "\x1b]0;title\x07",
            "\x1b[200~rm -rf /\x1b[201~",
            "\x1b[2J\x1b[H",
            "\x1b[6n",
            "\x1bP$q\x1b\\",
            "\x1bc",
            "fake\rreal",
            "\u{9b}31m",
            "user\u{202e}txt",
        ] {
            let shown = sanitise(&[attack.as_bytes()], Colours::Keep);
            assert!(shown.chars().all(|c| !c.is_control() && !is_deceptive(c)), "{shown:?}");
        }
    }

    #[test]
    fn raw_c1_bytes_are_only_shown() {
        assert_eq!(sanitise(&[b"a\x9b31mb"], Colours::Keep), "a\\x9b31mb");
    }

    proptest! {
        #[test]
        fn cutting_the_stream_changes_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..64), cut in 0usize..64) {
            let cut = cut.min(bytes.len());
            prop_assert_eq!(sanitise(&[&bytes[..cut], &bytes[cut..]], Colours::Keep), sanitise(&[&bytes], Colours::Keep));
        }

        #[test]
        fn nothing_but_colour_starts_an_escape(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let shown = sanitise(&[&bytes], Colours::Drop);
            prop_assert!(shown.chars().all(|c| matches!(c, '\n' | '\t' | '\r') || !c.is_control()));
        }

        #[test]
        fn a_clean_line_is_one_line(text in ".*") {
            prop_assert!(clean(&text).chars().all(|c| c == '\t' || !c.is_control()));
        }
    }
}
