#!/bin/sh
# A stranger's first hour with mu, as a script: photos to thumbnails with ffmpeg, then texts through a
# Python script of one's own, three of which fail, are found, run again and fetched. It needs a checkout
# with its .venv (make demo makes one), and no S3, no cloud account.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
PATH="$here/.venv/bin:$PATH"
ffmpeg=$(python -c 'import imageio_ffmpeg; print(imageio_ffmpeg.get_ffmpeg_exe())')
place=$(mktemp -d)
cd "$place"
trap 'kill "$daemon" 2>/dev/null && wait "$daemon" || true; cd /; rm -rf "$place"' EXIT
began=$(date +%s) count=0

try() {  # print a command, run it, count it
    count=$((count + 1))
    printf '\n$'
    for word in "$@"; do
        case "$word" in *[!A-Za-z0-9./=_-]*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac
    done
    printf '\n'
    "$@"
}

# ---------------------------------------------------------------- what the stranger has
mkdir photos texts
"$ffmpeg" -v error -f lavfi -i testsrc2=size=640x360:rate=60 -frames:v 60 'photos/IMG %02d.png'
for number in $(seq -w 1 50); do
    echo "Text $number is on the way to the printer" > "texts/chapter $number.txt"
done
for number in 07 23 41; do
    printf '\377\376 is not UTF-8\n' > "texts/chapter $number.txt"
done
cat > slugs_of.py <<'END'
import pathlib
import sys

import slugify

text = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")
pathlib.Path(sys.argv[2]).write_text(slugify.slugify(text) + "\n")
END
echo 'python-slugify' > requirements.txt

# ---------------------------------------------------------------- a daemon
printf '[mu]\nhome = home\n' > mu.conf
for section in worker relay control local; do printf '[%s]\nport = 0\n' "$section" >> mu.conf; done
export MU_HOME="$place/home"
printf '\n$ twistd -n mu --config mu.conf\n'
twistd -n --pidfile= mu --config mu.conf > daemon.log 2>&1 &
daemon=$!
count=$((count + 1))
until [ -e home/ports.json ]; do sleep 0.1; kill -0 "$daemon"; done

# ---------------------------------------------------------------- photos to thumbnails
try mu launch map --program "$ffmpeg" --in photos --out thumbs -n 4 \
    -p command="$(basename "$ffmpeg") -v error -i {in} -vf scale=160:-1 {out}"
test "$(find thumbs -name 'IMG *.png' -size +0 | wc -l)" = 60

# ---------------------------------------------------------------- texts, three of which fail
slugs_of="mu launch map --program ./slugs_of.py --requirements requirements.txt --in texts --out slugs -n 4"
try $slugs_of && exit 1  # the job fails, and names the three
test "$(find slugs -name 'chapter *.txt' | wc -l)" = 47
try mu jobs
key=$(mu watch last | sed -n 's/.* key: \(.*07.txt\)$/\1/p' || true)
try mu log last --key "$key"

# The script learns to read what the three are.
sed -i 's/encoding="utf-8"/encoding="utf-8", errors="replace"/' slugs_of.py
try mu deploy ./slugs_of.py --requirements requirements.txt
try mu rerun last --watch
try mu fetch last --to slugs
test "$(find slugs -name 'chapter *.txt' -size +0 | wc -l)" = 50

printf '\n%s commands, %s seconds: 60 thumbnails, 50 slugs.\n' "$count" "$(($(date +%s) - began))"
