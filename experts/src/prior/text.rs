//! Words, labels, titles and identifiers: strings whose prefixes and words recur, so that LIKE selects something.

use super::random::{Alias, Random, zipf_weights};

/// The words of one database.
#[derive(Debug)]
pub(super) struct Vocabulary {
    words: Vec<String>,
    /// Few words make up most of a text.
    frequency: Alias,
}

impl Vocabulary {
    /// Words from shared stems: `LIKE 'stem%'` finds a family of them.
    pub(super) fn draw(random: &mut Random) -> Self {
        const ONSETS: [&str; 18] =
            ["b", "br", "c", "d", "f", "g", "gr", "h", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v"];
        const RHYMES: [&str; 16] =
            ["a", "al", "an", "ar", "e", "el", "en", "er", "i", "il", "in", "o", "ol", "on", "or", "u"];
        const ENDINGS: [&str; 14] =
            ["", "a", "ia", "er", "ing", "ic", "son", "ton", "land", "vik", "ell", "ord", "ine", "os"];
        let mut words = vec![];
        for _ in 0..random.within(30..=90) {
            let stem: String = (0..2).map(|_| format!("{}{}", random.pick(&ONSETS), random.pick(&RHYMES))).collect();
            for _ in 0..random.within(2..=10) {
                words.push(format!("{stem}{}", random.pick(&ENDINGS)));
            }
        }
        words.sort_unstable();
        words.dedup();
        let words: Vec<String> = random.permutation(words.len()).iter().map(|&i| words[i as usize].clone()).collect();
        let frequency = Alias::new(&zipf_weights(words.len(), random.between(0.6, 1.2)));
        Self { words, frequency }
    }

    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    fn word(&self, index: usize) -> &str {
        &self.words[index % self.words.len()]
    }

    /// `count` labels for the values of a category; labels with neighbouring numbers often share a prefix.
    pub(super) fn labels(&self, count: usize, random: &mut Random) -> Vec<String> {
        let start = random.below(self.words.len());
        let side = (1..).find(|side| side * side >= count).unwrap_or(count).max(1);
        match random.pick(if count <= 26 { &[0, 0, 0, 1, 2, 3, 4, 4, 4, 5][..] } else { &[0, 0, 0, 1, 2, 3, 4, 4, 4] })
        {
            0 if count <= self.words.len() / 2 => (0..count).map(|i| capitalised(self.word(start + i))).collect(),
            0 | 1 => (0..count)
                .map(|i| {
                    format!(
                        "{} {}",
                        capitalised(self.word(start + i / side)),
                        capitalised(self.word(start + side + i % side))
                    )
                })
                .collect(),
            2 => {
                let group = random.pick(&[10, 25, 100]);
                (0..count)
                    .map(|i| {
                        format!(
                            "{}-{:03}",
                            self.word(start + i / group).get(..2).unwrap_or("x").to_uppercase(),
                            i % group
                        )
                    })
                    .collect()
            }
            3 => (0..count)
                .map(|i| format!("{}/{}_{}", self.word(start), self.word(start + 1 + i / side), i % side))
                .collect(),
            // Codes of letters, of which neighbours differ in the last.
            4 => {
                let width = if count <= 676 && random.chance(0.5) { 2 } else { 3 };
                let codes = 26usize.pow(width);
                let start = random.below(codes);
                let letter = |code: usize, place: u32| char::from(b'A' + (code / 26usize.pow(place) % 26) as u8);
                let code = |i: usize| (0..width).rev().map(|place| letter((start + i) % codes, place)).collect();
                (0..count).map(code).collect()
            }
            _ => (0..count).map(|i| char::from(b'A' + i as u8).to_string()).collect(),
        }
    }

    /// Writes a title of a few words that begins with word number `first`.
    pub(super) fn write_title(&self, first: usize, words: usize, random: &mut Random, title: &mut String) {
        title.push_str(self.word(first));
        for _ in 1..words {
            title.push(' ');
            title.push_str(self.word(self.frequency.draw(random)));
        }
    }

    /// Writes an address like `stem.word17@word.com` at the provider number `provider`.
    pub(super) fn write_email(&self, provider: usize, random: &mut Random, email: &mut String) {
        email.push_str(self.word(self.frequency.draw(random)));
        email.push('.');
        email.push_str(self.word(random.below(self.words.len())));
        write_number(random.below(1000), 0, email);
        email.push('@');
        email.push_str(self.word(provider));
        email.push_str(".com");
    }
}

/// Writes `number` with at least `width` digits; several times faster than `format!`.
#[inline]
pub(super) fn write_number(mut number: usize, width: usize, text: &mut String) {
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    while number > 0 || digits.len() - first < width.clamp(1, 20) {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    digits[first..].iter().for_each(|&digit| text.push(char::from(digit)));
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_padded() {
        let mut text = String::new();
        for (number, width) in [(7, 3), (0, 1), (12_345, 2)] {
            write_number(number, width, &mut text);
            text.push(' ');
        }
        assert_eq!(text, "007 0 12345 ");
    }

    #[test]
    fn labels_share_prefixes() {
        let mut random = Random::new(11);
        let vocabulary = Vocabulary::draw(&mut random);
        let mut shared = 0;
        for _ in 0..20 {
            let mut labels = vocabulary.labels(200, &mut random);
            assert_eq!(labels.len(), 200);
            labels.sort_unstable();
            let pairs = labels.windows(2).filter(|pair| pair[0].get(..2) == pair[1].get(..2)).count();
            shared += usize::from(pairs > 60);
        }
        assert!(shared >= 15, "{shared} of 20 sets of labels have common prefixes");
    }
}
