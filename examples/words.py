"""Count the words of a file: `words.py FILE OUT`."""

import re
import sys
from collections import Counter
from pathlib import Path

text = Path(sys.argv[1]).read_text(errors="replace")
counts = Counter(word.lower() for word in re.findall(r"\w+", text))
lines = [f"{count:6} {word}\n" for word, count in counts.most_common()]
Path(sys.argv[2]).write_text("".join(lines))
print(sys.argv[1], len(lines), "words")
