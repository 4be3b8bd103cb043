"""Names of instruments in standards, in data sets, and in the answers of language models."""

# Instrument of our vocabulary → names for it by language models and people.
SAID = {
    "guitar": [
        "GUITARS", "guitar strumming", "guitar riff", "lead guitar", "rhythm guitar", "muted guitar",
        "guitar arpeggios", "guitar with delay", "guitar (rhythm)", "Gitarren", "吉他",
    ],
    "acoustic guitar": [
        "acoustic guitar strumming", "fingerpicked acoustic guitar", "strummed acoustic guitars",
        "guitar (acoustic)", "12-string acoustic guitar", "steel-string guitar",
        "gentle acoustic guitar picking", "guitarra acústica",
    ],
    "classical guitar": [
        "nylon-string guitar", "Spanish guitar", "flamenco guitar",
    ],
    "electric guitar": [
        "distorted electric guitar riff", "clean electric guitar", "overdriven guitar", "power chords",
        "palm-muted electric guitar", "heavily distorted guitars", "guitars (electric, distorted)",
        "wah-wah guitar", "E-Gitarre", "guitare électrique", "chitarra elettrica", "电吉他",
        "funky electric guitar licks", "electric guitar solo",
    ],
    "steel guitar": [
        "pedal steel", "slide guitar", "lap steel guitar", "dobro",
    ],
    "bass": [
        "deep bass", "bass line", "bassline", "bass groove", "walking bass line", "Bass (instrument role)",
        "pulsing bass", "贝斯",
    ],
    "bass guitar": [
        "electric bass guitar", "electric bass", "slap bass", "bass guitar groove", "fretless bass",
        "picked electric bass",
    ],
    "double bass": [
        "upright bass", "double basses", "acoustic bass", "contrabass", "standup bass", "walking upright bass",
    ],
    "synth bass": [
        "sub bass", "sub-bass", "subbass", "808 bass", "deep 808 sub bass", "synthesizer bass",
        "synthesiser bass", "Reese bass", "wobble bass", "bass (synth)", "acid bass line",
        "pulsating synth bass", "moog bass",
    ],
    "piano": [
        "grand piano", "a soft piano melody", "piano chords", "felt piano", "upright piano", "acoustic piano",
        "piano ballad chords", "gentle piano arpeggios", "Klavier", "钢琴", "鋼琴",
    ],
    "electric piano": [
        "electric piano chords", "warm rhodes piano", "Fender Rhodes", "Wurlitzer", "e-piano", "epiano",
        "E-Piano", "electric piano (Rhodes)", "Rhodes (electric piano)", "Rhodes chords", "electric keys",
    ],
    "keyboard": [
        "keys", "keyboards", "electronic keyboard", "Keyboard (musical)", "teclado", "键盘",
    ],
    "organ": [
        "church organ", "pipe organ", "sustained organ chords", "órgano",
    ],
    "electric organ": [
        "Hammond organ", "Hammond B3", "B3 organ", "electronic organ",
    ],
    "synthesizer": [
        "synth", "synths", "synthesizers", "synthesisers", "arpeggiated synth", "synth arpeggio",
        "synth stabs", "synth chords", "analog synth", "synth plucks", "arpeggiator", "retro 80s synths",
        "chiptune", "8-bit synth", "合成器",
    ],
    "synth lead": [
        "lead synth", "synth lead", "synthesizer (lead)", "sawtooth lead", "bright synth lead melody",
        "supersaw lead", "bright synth melody line",
    ],
    "synth pad": [
        "synth pad", "synth pads", "ambient pad textures", "lush synth pads", "pads", "atmospheric pads",
        "synthesizer pad", "warm analog pads", "synthesizer (pad)", "string pad", "evolving pads",
    ],
    "synth strings": [
        "synthesized strings", "string machine", "synthetic strings",
    ],
    "synth brass": [
        "synthesizer brass", "synth horns",
    ],
    "drum machine": [
        "drum machine", "808s", "TR-808", "programmed drums", "programmed drum beat", "electronic drums",
        "electronic drum kit", "electronic beats", "drums (electronic)", "trap drums", "drum machine (808)",
        "electronic drum beat", "synthetic drums", "鼓机",
    ],
    "turntables": [
        "turntable scratches", "DJ scratching", "vinyl scratches", "scratching", "record scratch",
    ],
    "sampler": [
        "sampler", "samples",
    ],
    "ambience": [
        "ambient textures", "ambient soundscape", "atmospheric textures", "drone",
    ],
    "sound effects": [
        "sound effects", "sound effect", "SFX", "risers", "white noise sweep", "vinyl crackle", "FX",
        "air horn",
    ],
    "strings": [
        "lush string section", "orchestral strings", "string ensemble", "pizzicato strings", "pizzicato",
        "string quartet", "soaring strings", "strings (violins, cellos)", "staccato strings", "Streicher",
        "弦乐",
    ],
    "violin": [
        "fiddle", "solo violin", "electric violin", "violin melody", "Geige", "小提琴", "bowed violin",
    ],
    "cello": [
        "violoncello", "cellos", "mournful cello", "大提琴",
    ],
    "brass": [
        "brass section", "brass stabs", "horn section", "horns", "brass hits", "Blechbläser",
    ],
    "trumpet": [
        "muted trumpet", "trumpet solo", "trompeta", "小号",
    ],
    "saxophone": [
        "sax", "saxes", "tenor sax", "alto saxophone", "smooth saxophone solo", "sax (alto)", "萨克斯",
    ],
    "flute": [
        "flute", "wooden flute", "Native American flute", "ethereal flute melody", "Querflöte", "长笛",
    ],
    "harmonica": [
        "bluesy harmonica", "Mundharmonika", "blues harp",
    ],
    "woodwinds": [
        "woodwind section", "woodwinds", "wind instruments",
    ],
    "drums": [
        "drums", "drum kit", "drumkit", "drum set", "drumset", "live drums", "acoustic drum kit", "drum beat",
        "drum fills", "beat", "four-on-the-floor beat", "steady drum groove", "drums and percussion",
        "drums (kick, snare, hi-hats)", "brushed drums", "rock drum beat", "breakbeat", "hip-hop beat",
        "Schlagzeug", "batería", "鼓", "tribal drums", "driving drum pattern", "double-time drums",
    ],
    "kick drum": [
        "808 kick", "kick", "four-on-the-floor kick drum", "four on the floor kick", "bass drum", "deep kick",
        "punchy kick drum", "kick drum (808)", "thumping kick", "大鼓",
    ],
    "snare drum": [
        "snare", "snares", "crisp snare hits", "rimshots", "snare rolls", "rim clicks", "cross-stick",
        "military snare",
    ],
    "hi hat": [
        "hi-hats", "hihat", "hi hat", "Hi-Hat", "high-hat", "trap hi-hat rolls", "closed hi-hats", "hats",
        "rapid hi-hats", "open hats",
    ],
    "cymbal": [
        "crash cymbals", "ride cymbal", "cymbal swells", "crashes", "splash cymbal", "cymbal rolls",
    ],
    "tom": [
        "toms", "tom-toms", "floor tom", "low toms",
    ],
    "hand clap": [
        "claps", "handclaps", "hand claps", "claps and snaps", "clapping", "808 claps", "palmas",
    ],
    "finger snaps": [
        "finger snaps", "snaps", "finger snapping",
    ],
    "percussion": [
        "hand percussion", "percussion", "Latin percussion", "hand drums", "light percussion",
        "percussive elements", "打击乐",
    ],
    "shaker": [
        "shaker", "shakers", "egg shaker", "maracas", "shaker loop",
    ],
    "tambourine": [
        "tambourine", "tambourine hits",
    ],
    "bongos": [
        "bongos", "bongo drums",
    ],
    "congas": [
        "conga", "congas", "conga drums",
    ],
    "cajon": [
        "Cajón",
    ],
    "mallets": [
        "mallet_percussion", "tuned percussion",
    ],
    "bell": [
        "church bells", "bells",
    ],
    "chimes": [
        "chimes",
    ],
    "steel drum": [
        "steelpan", "steel drums", "steel pans",
    ],
    "kalimba": [
        "thumb piano", "mbira",
    ],
    "orchestra": [
        "orchestra", "full orchestra", "orchestral hits", "symphonic orchestra", "cinematic orchestra",
    ],
    "vocals": [
        "vocals", "voice", "male lead vocal", "female vocals", "male vocals", "lead vocals", "lead singer",
        "female vocalist", "singing", "vocal melody", "vox", "lead vox", "vocals (male)",
        "Vocals (female, lead)", "the singer's voice", "soprano voice", "breathy female vocals",
        "male and female vocals", "operatic vocals", "auto-tuned vocals", "whispered vocals", "falsetto",
        "a cappella", "acapella", "human voice", "voz femenina", "人声", "女声", "Gesang",
        "emotional male singing voice", "children singing",
    ],
    "backing vocals": [
        "backing harmonies", "backing vocals", "background vocals", "vocal harmonies", "harmonies",
        "background singers", "harmony vocals", "ad-libs", "oohs and aahs", "female backing vocals",
        "layered vocals", "group vocals", "和声",
    ],
    "choir": [
        "choir", "children's choir", "male choir", "gospel choir", "choral voices", "wordless choir", "Chor",
        "合唱",
    ],
    "vocal samples": [
        "vocal chops", "chopped vocals", "vocal samples", "pitched vocal chops",
    ],
    "synthetic vocals": [
        "vocoder", "robotic vocals", "vocoder vocals", "synthesized voice", "talk box",
    ],
    "rap": [
        "rap vocals", "rapping", "male rapper", "rap verses", "female rap", "rapped vocals",
    ],
    "spoken word": [
        "spoken word", "speech", "narration", "male speaking voice",
    ],
    "chant": [
        "chanting", "Gregorian chant", "chants",
    ],
    "beatboxing": [
        "beatbox", "vocal percussion",
    ],
    "whistling": [
        "whistling", "whistle", "whistled melody",
    ],
    "humming": [
        "humming", "soft humming",
    ],
    "harp": [
        "harp glissando", "celtic harp", "Harfe",
    ],
    "banjo": [
        "plucky banjo",
    ],
    "sitar": [
        "Indian sitar",
    ],
    "erhu": [
        "erhu", "二胡",
    ],
    "glockenspiel": [
        "glockenspiel", "bright glockenspiel melody",
    ],
    "accordion": [
        "accordion", "accordions", "acordeón",
    ],
}  # fmt: skip

# MIDI Manufacturers Association, "General MIDI System Level 1", 1991: its programs, and keys 35 to 81 of channel 10.
GENERAL_MIDI = (
    "Acoustic Grand Piano", "Bright Acoustic Piano", "Electric Grand Piano", "Honky-tonk Piano",
    "Electric Piano 1", "Electric Piano 2", "Harpsichord", "Clavi", "Celesta", "Glockenspiel", "Music Box",
    "Vibraphone", "Marimba", "Xylophone", "Tubular Bells", "Dulcimer", "Drawbar Organ", "Percussive Organ",
    "Rock Organ", "Church Organ", "Reed Organ", "Accordion", "Harmonica", "Tango Accordion",
    "Acoustic Guitar (nylon)", "Acoustic Guitar (steel)", "Electric Guitar (jazz)", "Electric Guitar (clean)",
    "Electric Guitar (muted)", "Overdriven Guitar", "Distortion Guitar", "Guitar harmonics", "Acoustic Bass",
    "Electric Bass (finger)", "Electric Bass (pick)", "Fretless Bass", "Slap Bass 1", "Slap Bass 2",
    "Synth Bass 1", "Synth Bass 2", "Violin", "Viola", "Cello", "Contrabass", "Tremolo Strings",
    "Pizzicato Strings", "Orchestral Harp", "Timpani", "String Ensemble 1", "String Ensemble 2",
    "SynthStrings 1", "SynthStrings 2", "Choir Aahs", "Voice Oohs", "Synth Voice", "Orchestra Hit", "Trumpet",
    "Trombone", "Tuba", "Muted Trumpet", "French Horn", "Brass Section", "SynthBrass 1", "SynthBrass 2",
    "Soprano Sax", "Alto Sax", "Tenor Sax", "Baritone Sax", "Oboe", "English Horn", "Bassoon", "Clarinet",
    "Piccolo", "Flute", "Recorder", "Pan Flute", "Blown Bottle", "Shakuhachi", "Whistle", "Ocarina",
    "Lead 1 (square)", "Lead 2 (sawtooth)", "Lead 3 (calliope)", "Lead 4 (chiff)", "Lead 5 (charang)",
    "Lead 6 (voice)", "Lead 7 (fifths)", "Lead 8 (bass + lead)", "Pad 1 (new age)", "Pad 2 (warm)",
    "Pad 3 (polysynth)", "Pad 4 (choir)", "Pad 5 (bowed)", "Pad 6 (metallic)", "Pad 7 (halo)", "Pad 8 (sweep)",
    "FX 1 (rain)", "FX 2 (soundtrack)", "FX 3 (crystal)", "FX 4 (atmosphere)", "FX 5 (brightness)",
    "FX 6 (goblins)", "FX 7 (echoes)", "FX 8 (sci-fi)", "Sitar", "Banjo", "Shamisen", "Koto", "Kalimba",
    "Bag pipe", "Fiddle", "Shanai", "Tinkle Bell", "Agogo", "Steel Drums", "Woodblock", "Taiko Drum",
    "Melodic Tom", "Synth Drum", "Reverse Cymbal", "Guitar Fret Noise", "Breath Noise", "Seashore",
    "Bird Tweet", "Telephone Ring", "Helicopter", "Applause", "Gunshot",
)  # fmt: skip
GENERAL_MIDI_DRUMS = (
    "Acoustic Bass Drum", "Bass Drum 1", "Side Stick", "Acoustic Snare", "Hand Clap", "Electric Snare",
    "Low Floor Tom", "Closed Hi Hat", "High Floor Tom", "Pedal Hi-Hat", "Low Tom", "Open Hi-Hat",
    "Low-Mid Tom", "Hi Mid Tom", "Crash Cymbal 1", "High Tom", "Ride Cymbal 1", "Chinese Cymbal", "Ride Bell",
    "Tambourine", "Splash Cymbal", "Cowbell", "Crash Cymbal 2", "Vibraslap", "Ride Cymbal 2", "Hi Bongo",
    "Low Bongo", "Mute Hi Conga", "Open Hi Conga", "Low Conga", "High Timbale", "Low Timbale", "High Agogo",
    "Low Agogo", "Cabasa", "Maracas", "Short Whistle", "Long Whistle", "Short Guiro", "Long Guiro", "Claves",
    "Hi Wood Block", "Low Wood Block", "Mute Cuica", "Open Cuica", "Mute Triangle", "Open Triangle",
)  # fmt: skip

# Humphrey, Durand & McFee, "OpenMIC-2018", ISMIR 2018.
OPENMIC = (
    "accordion", "banjo", "bass", "cello", "clarinet", "cymbals", "drums", "flute", "guitar", "mallet_percussion",
    "mandolin", "organ", "piano", "saxophone", "synthesizer", "trombone", "trumpet", "ukulele", "violin", "voice",
)  # fmt: skip
# Bosch et al., "A comparison of sound segregation techniques for predominant instrument recognition", ISMIR 2012.
IRMAS = (
    "cello", "clarinet", "flute", "acoustic guitar", "electric guitar", "organ", "piano", "saxophone", "trumpet",
    "violin", "human singing voice",
)  # fmt: skip
# Bittner et al., "MedleyDB", ISMIR 2014: the most frequent of its labels.
MEDLEYDB = (
    "accordion", "acoustic guitar", "alto saxophone", "auxiliary percussion", "bamboo flute", "banjo",
    "baritone saxophone", "bass clarinet", "bass drum", "bassoon", "bongo", "brass section", "cello",
    "cello section", "chimes", "claps", "clarinet", "clarinet section", "clean electric guitar", "cymbal",
    "darbuka", "distorted electric guitar", "dizi", "double bass", "doumbek", "drum machine", "drum set",
    "electric bass", "electric piano", "erhu", "female rapper", "female singer", "flute", "flute section",
    "French horn", "French horn section", "fx/processed sound", "glockenspiel", "gong", "gu", "guzheng",
    "harmonica", "harp", "horn section", "kick drum", "lap steel guitar", "liuqin", "male rapper",
    "male screamer", "male singer", "male speaker", "mandolin", "melodica", "oboe", "oud", "panpipes", "piano",
    "piccolo", "sampler", "scratches", "shaker", "snare drum", "soprano saxophone", "string section",
    "synthesizer", "tabla", "tack piano", "tambourine", "tenor saxophone", "timpani", "toms", "trombone",
    "trombone section", "trumpet", "trumpet section", "tuba", "vibraphone", "viola", "viola section", "violin",
    "violin section", "vocalists", "yangqin", "zhongruan",
)  # fmt: skip
MUSDB = ("vocals", "drums", "bass")  # its fourth stem is "other"
