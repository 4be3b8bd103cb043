"""The instruments and voices among AudioSet's 527 classes: the labels that a model of AudioSet may return as tags.

Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events", ICASSP 2017. The names are the
display names in its ``class_labels_indices.csv``, as models have them in ``id2label``; its ``ontology.json`` defines
which class is below which.

The rules of the selection:

- Every class below "Musical instrument" (/m/04szw) is included: groups ("Brass instrument", "Percussion",
  "Orchestra"), techniques ("Strum", "Pizzicato", "Rimshot", "Drum roll", "Scratching (performance technique)"), which
  the ontology lists under their instrument, and all bells, with "Bicycle bell" and "Tuning fork".
- "Singing" and every class below it, with "Rapping", "Humming", "Beatboxing", "Vocal music" and "A capella" are
  included.
- "Whistling", "Finger snapping" and "Clapping" are included. The ontology has them under human sounds, but songs use
  them as instruments, and General MIDI has two of the three.

Excluded, because they name no instrument: "Music" and "Musical instrument", which every song has; "Speech" and the
classes near it, which models of AudioSet also find in singing and rap; genres and moods, with "Opera"; "Effects unit",
"Chorus effect", "Distortion" and "Reverberation", which are effects on an instrument; "Sound effect", "Noise" and
"Sine wave"; "Whistle", the object; "Applause"; "Computer keyboard"; and the horns of vehicles.
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
"""The selected classes, in the order of AudioSet's indices."""
