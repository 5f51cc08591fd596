"""What film's workers run, with ffmpeg. Needs Python 3.9 or newer, and no more.

    python3 -m film_program look|encode|rest|room|join FOLDER

reads FOLDER/order.json, writes files into FOLDER, and prints one line of JSON: what it found, or
{"refused": a sentence}. All times are ticks of the film's own time base, so that nothing is rounded.
A frame belongs to chunk k if `border(k) <= its timestamp < border(k + 1)`; the first chunk has no
begin and the last no end. So no frame is lost or doubled, wherever the borders are.
"""
