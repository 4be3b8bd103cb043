"""Which of AudioSet's 527 classes are instruments or voices: what a model of AudioSet is asked for here.

Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events", ICASSP 2017. The names are the
display names of its ``class_labels_indices.csv``, as models spell them in their ``id2label``; what lies below what is
said by its ``ontology.json``.

Chosen by rule, so that nobody has to guess:

- Every class below "Musical instrument" (/m/04szw) is in: groups ("Brass instrument", "Percussion", "Orchestra"),
  techniques ("Strum", "Pizzicato", "Rimshot", "Drum roll", "Scratching (performance technique)"), which the ontology
  files under the instrument that they are played on, and bells of every kind, the bicycle's and the tuning fork too.
- "Singing" and all that is below it, rapping too, "Humming", "Beatboxing", "Vocal music" and "A capella" are in.
- "Whistling", "Finger snapping" and "Clapping" are human sounds to the ontology; songs use them as instruments, and
  General MIDI has two of the three.

Left out, because they name no instrument: "Music" and "Musical instrument", which are true of every song; "Speech" and
its kin, which models of AudioSet also hear in singing and rap; genres and moods, "Opera" among them; "Effects unit",
"Chorus effect", "Distortion" and "Reverberation", which are done to an instrument; "Sound effect", "Noise" and "Sine
wave"; "Whistle", the object; "Applause", the audience; "Computer keyboard" and every horn with an engine behind it.
"""

from typing import Final

INSTRUMENT_CLASSES: Final = (
    "Singing", "Choir", "Yodeling", "Chant", "Mantra", "Male singing", "Female singing", "Child singing",
    "Synthetic singing", "Rapping", "Humming", "Whistling", "Finger snapping", "Clapping", "Cowbell",
    "Plucked string instrument", "Guitar", "Electric guitar", "Bass guitar", "Acoustic guitar",
    "Steel guitar, slide guitar", "Tapping (guitar technique)", "Strum", "Banjo", "Sitar", "Mandolin", "Zither",
    "Ukulele", "Keyboard (musical)", "Piano", "Electric piano", "Organ", "Electronic organ", "Hammond organ",
    "Synthesizer", "Sampler", "Harpsichord", "Percussion", "Drum kit", "Drum machine", "Drum", "Snare drum",
    "Rimshot", "Drum roll", "Bass drum", "Timpani", "Tabla", "Cymbal", "Hi-hat", "Wood block", "Tambourine",
    "Rattle (instrument)", "Maraca", "Gong", "Tubular bells", "Mallet percussion", "Marimba, xylophone",
    "Glockenspiel", "Vibraphone", "Steelpan", "Orchestra", "Brass instrument", "French horn", "Trumpet",
    "Trombone", "Bowed string instrument", "String section", "Violin, fiddle", "Pizzicato", "Cello",
    "Double bass", "Wind instrument, woodwind instrument", "Flute", "Saxophone", "Clarinet", "Harp", "Bell",
    "Church bell", "Jingle bell", "Bicycle bell", "Tuning fork", "Chime", "Wind chime",
    "Change ringing (campanology)", "Harmonica", "Accordion", "Bagpipes", "Didgeridoo", "Shofar", "Theremin",
    "Singing bowl", "Scratching (performance technique)", "Beatboxing", "Vocal music", "A capella",
)  # fmt: skip
"""In the order of AudioSet's indices."""
