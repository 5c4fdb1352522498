"""Write the samples of this folder: `python tests/assets/make_samples.py` (the novels and the dictionary need a Debian mirror).

Listings, German and French are synthetic: sentences written for this project with their blanks filled at random, seeded.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from random import Random

from cpt.corpus.debian import Mirror
from cpt.corpus.documents import Document, draw
from cpt.corpus.parsers import parse_dictd, parse_novels

HERE = Path(__file__).parent

BRANDS = [
    "Alderton",
    "Brisk",
    "Calmora",
    "Dunvale",
    "Estrel",
    "Fennick",
    "Galdor",
    "Hartwick",
    "Iskra",
    "Junora",
    "Kestova",
    "Lumbry",
    "Marlowe",
    "Nordhal",
    "Orvane",
    "Pellworth",
    "Quillon",
]
COLORS = ["black", "graphite", "ivory", "sand", "olive", "navy", "cobalt", "crimson", "amber", "teal", "copper", "moss"]
MATERIALS = [
    "brushed aluminum",
    "oiled oak",
    "recycled polyester",
    "waxed canvas",
    "borosilicate glass",
    "powder-coated steel",
    "merino wool",
    "cast iron",
    "bamboo",
]
GOODS = {
    "kitchen": "kettle;frying pan;chef's knife;coffee grinder;mixing bowl;salad spinner;pepper mill;stock pot",
    "garden": "pruning shears;watering can;hose reel;raised bed;leaf rake;compost bin;hedge trimmer;potting bench",
    "audio": "headphones;turntable;bookshelf speaker;soundbar;clip-on microphone;radio alarm clock;headphone amplifier;record cleaner",
    "outdoor": "two-person tent;sleeping mat;trekking poles;daypack;camp stove;water filter;head torch;dry bag",
    "office": "desk lamp;standing desk;ergonomic chair;label printer;monitor arm;paper shredder;notebook set;cable tray",
    "cycling": "bike light;floor pump;pannier bag;saddle;multi-tool;chain lock;mudguard set;helmet",
    "toys": "marble run;building blocks;jigsaw puzzle;wooden train;kite;board game;balance bike;modeling clay",
    "home": "throw blanket;wall clock;storage basket;floor lamp;picture frame;laundry hamper;door mat;draft stopper",
}
LISTING_SENTENCES = """\
Made from {material}, it weighs only {n} grams and measures {n} by {m} centimeters.
The {material} body keeps its finish for years and is wiped clean with a damp cloth.
Ships in a plain carton of {n} by {m} by {m} centimeters without any plastic.
We tested it over {n} cycles in our own workshop before the first unit left the factory.
The handle was redesigned after {m} customers told us that the older one was too short.
Comes with a {m}-year warranty that covers materials and workmanship, not normal wear.
Spare parts stay available for at least {m} years and can be ordered one by one.
Compatible with all accessories of the {brand} series {n}, including the wall mount.
Rated {m} out of 100 for noise in our test, which is quieter than a normal conversation.
A set of {m} screws, two brackets and a printed manual are part of the delivery.
Energy use is {m} watts in operation and less than half a watt when it stands by.
The surface resists scratches, oil and temperatures up to {n} degrees.
Folded flat it fits behind a door and takes up less than {m} liters of space.
Customers who bought this also took the {color} cover by {brand}.
Assembly takes about {m} minutes and needs only the hex key that lies in the box.
Available in {color}, {color} and {color}; the color may look different on your screen.
Please note that item number {n} replaces the earlier number {n} from spring.
Returns are free for {m} days as long as the seal of the inner bag is not broken.
It holds up to {m} kilograms, tested at twice that load for safety.
The {brand} label is stitched, not printed, so that it survives the washing machine.
Designed in a small studio of {m} people who use it themselves every day.
The battery lasts {m} hours on one charge and is full again after {m} minutes.
Two of the {m} pieces may be used in the dishwasher, the rest should be washed by hand.
Stock is limited to {n} pieces this season, with the next delivery in {m} weeks.
The edges are rounded to a radius of {m} millimeters to protect small hands.
Every hundredth unit is taken apart for inspection; our failure rate is {m} in {n}.
A magnetic catch keeps the lid shut even when it is carried upside down.
Choose size {m} if you are between two sizes, since the cut is rather narrow.
The cord is {m} meters long and can be wound up underneath.
Reviewers praise the balance and the price, and criticize the smell of the first days.
If you need more than {m} pieces, ask us for a quote and mention code {brand}{n}.
This model replaces the {color} edition, with a stronger hinge and a {material} base.
Made in a plant that runs on {m} percent wind power according to last year's audit.
The scale is printed on both sides in metric and imperial units.
Not suitable for children under {m} months because of small parts.
""".splitlines()
GERMAN_SENTENCES = """\
Der Zug nach {place} fährt heute {n} Minuten später ab, weil auf der Strecke ein Baum liegt.
Am Morgen steht {name} früh auf und geht mit dem Hund am Ufer des Flusses entlang.
Die Bäckerei in der Nähe von {place} verkauft seit {n} Jahren das gleiche dunkle Brot.
Im Garten wachsen Bohnen, Kürbisse und {n} Sorten Tomaten, die im August reif werden.
Als der Regen aufhörte, öffnete {name} das Fenster und ließ die kühle Luft herein.
Das Museum in {place} zeigt {n} Bilder aus einer Zeit, an die sich kaum noch jemand erinnert.
Wer den Berg besteigen will, sollte vor sechs Uhr aufbrechen und genug Wasser mitnehmen.
Die Lehrerin erklärte den Kindern, warum der Mond manchmal am Tag zu sehen ist.
Für das Rezept braucht man {n} Gramm Mehl, zwei Eier, etwas Salz und viel Geduld.
Mein Großvater hat die Uhr selbst repariert, und sie geht bis heute auf die Minute genau.
In der Werkstatt riecht es nach Holz und Leim, und auf der Bank liegen {n} Hobel.
{name} schrieb einen langen Brief, den niemand beantwortete, und legte ihn in die Schublade.
Nach der Ernte feiert das ganze Dorf, und die Musik spielt bis tief in die Nacht.
Es ist nicht leicht, eine alte Mauer zu erhalten, ohne die Steine zu ersetzen.
Die Bibliothek von {place} hat am Sonntag geschlossen, aber der Lesesaal bleibt offen.
Mit dem Fahrrad sind es {n} Kilometer bis zur Küste, und der Wind kommt meistens von vorn.
Das Wasser war so klar, dass man die Steine auf dem Grund zählen konnte.
Im Winter heizt {name} nur ein einziges Zimmer und liest am Ofen die Zeitung von gestern.
Die Brücke wurde vor {n} Jahren gebaut und ist seitdem nur einmal gesperrt worden.
Auf dem Markt gibt es Äpfel, Käse und Honig, und die Händler rufen ihre Preise laut aus.
Wenn der Nebel über den Feldern liegt, hört man die Glocken von {place} besonders gut.
Die Forscherin zählte {n} Vögel und trug jede Art mit Bleistift in ihr Heft ein.
Ein Schiff mit roten Segeln lag im Hafen, und niemand wusste, woher es gekommen war.
Der Arzt empfahl Ruhe, warme Suppe und einen Spaziergang von {n} Minuten am Tag.
Zwischen den beiden Häusern führt ein schmaler Weg hinunter zum See.
Die Kinder bauten aus Schnee eine Burg, die erst nach {n} Tagen schmolz.
{name} hatte den Schlüssel verloren und wartete auf der Treppe, bis die Nachbarin kam.
Das Orchester probte das Stück so oft, dass selbst der Hausmeister es mitsummen konnte.
Man sagt, dass die Leute in {place} lieber schweigen als zu viel zu versprechen.
Die Rechnung war um {n} Euro zu hoch, doch der Wirt entschuldigte sich und lud uns zum Kaffee ein.
Unter dem Dach fand {name} eine Kiste mit Karten von Ländern, die es nicht mehr gibt.
Die neue Straße verkürzt den Weg nach {place}, aber sie macht auch mehr Lärm.
Ohne Hilfe der Feuerwehr wäre die Scheune in jener Nacht vollständig abgebrannt.
Der Film dauerte {n} Minuten, und am Ende klatschten nur drei Zuschauer.
Gegen Abend wurde es still, und der Wirt stellte die Stühle auf die Tische.
Die Regierung will {n} Millionen ausgeben, damit die Züge wieder pünktlich sind.
""".splitlines()
FRENCH_SENTENCES = """\
Le train pour {place} part aujourd'hui avec {n} minutes de retard à cause d'un arbre tombé sur la voie.
Le matin, {name} se lève tôt et marche avec son chien le long de la rivière.
La boulangerie près de {place} vend depuis {n} ans le même pain de seigle.
Dans le jardin poussent des haricots, des courges et {n} sortes de tomates qui mûrissent en août.
Quand la pluie cessa, {name} ouvrit la fenêtre et laissa entrer l'air frais.
Le musée de {place} expose {n} tableaux d'une époque dont presque personne ne se souvient.
Qui veut gravir la montagne doit partir avant six heures et emporter assez d'eau.
La maîtresse expliqua aux enfants pourquoi la lune se voit parfois en plein jour.
Pour la recette, il faut {n} grammes de farine, deux œufs, un peu de sel et beaucoup de patience.
Mon grand-père a réparé la pendule lui-même, et elle est encore juste à la minute près.
L'atelier sent le bois et la colle, et sur l'établi sont posés {n} rabots.
{name} écrivit une longue lettre à laquelle personne ne répondit, puis la rangea dans le tiroir.
Après la moisson, tout le village fait la fête et la musique joue jusque tard dans la nuit.
Il n'est pas facile de conserver un vieux mur sans remplacer les pierres.
La bibliothèque de {place} est fermée le dimanche, mais la salle de lecture reste ouverte.
À vélo, il y a {n} kilomètres jusqu'à la côte, et le vent vient presque toujours de face.
L'eau était si claire que l'on pouvait compter les cailloux au fond.
En hiver, {name} ne chauffe qu'une seule pièce et lit près du poêle le journal de la veille.
Le pont fut construit il y a {n} ans et n'a été fermé qu'une seule fois depuis.
Sur le marché, on trouve des pommes, du fromage et du miel, et les marchands crient leurs prix.
Lorsque la brume couvre les champs, on entend très bien les cloches de {place}.
La chercheuse compta {n} oiseaux et nota chaque espèce au crayon dans son carnet.
Un bateau aux voiles rouges était au port, et nul ne savait d'où il était venu.
Le médecin conseilla du repos, une soupe chaude et une promenade de {n} minutes par jour.
Entre les deux maisons, un chemin étroit descend vers le lac.
Les enfants bâtirent un château de neige qui ne fondit qu'au bout de {n} jours.
{name} avait perdu la clé et attendit dans l'escalier que la voisine rentre.
L'orchestre répéta le morceau si souvent que même le gardien le fredonnait.
On dit que les gens de {place} préfèrent se taire plutôt que de trop promettre.
L'addition était trop élevée de {n} euros, mais le patron s'excusa et nous offrit le café.
Sous le toit, {name} découvrit une caisse de cartes de pays qui n'existent plus.
La nouvelle route raccourcit le trajet vers {place}, mais elle fait aussi plus de bruit.
Sans l'aide des pompiers, la grange aurait entièrement brûlé cette nuit-là.
Le film dura {n} minutes, et à la fin trois spectateurs seulement applaudirent.
Vers le soir, tout devint calme et le patron posa les chaises sur les tables.
Le gouvernement veut dépenser {n} millions pour que les trains soient de nouveau à l'heure.
""".splitlines()
NAMES = ["Anna", "Martin", "Klara", "Jonas", "Paula", "Emil", "Louise", "Victor", "Marta", "Oskar", "Jeanne", "Simon"]
PLACES = ["Lindau", "Bremen", "Görlitz", "Passau", "Husum", "Weimar", "Annecy", "Colmar", "Dijon", "Nantes", "Arles", "Cahors"]


def fill(sentence: str, random: Random) -> str:
    """Put a random word or number into each blank."""
    blanks = {"material": MATERIALS, "brand": BRANDS, "color": COLORS, "name": NAMES, "place": PLACES}
    while "{" in sentence:
        name = sentence[sentence.index("{") + 1 : sentence.index("}")]
        value = random.choice(blanks[name]) if name in blanks else str(random.randint(2, 95) if name == "m" else random.randint(3, 990))
        sentence = sentence.replace(f"{{{name}}}", value, 1)
    return sentence


def listings(number: int, random: Random) -> Iterable[Document]:
    """Product listings in the shape of the catalogue's: title, section, tags, description."""
    for index in range(number):
        topic = random.choice(list(GOODS))
        good, color, brand = random.choice(GOODS[topic].split(";")), random.choice(COLORS), random.choice(BRANDS)
        title = f"{brand} {good}, {color}, model {random.randint(100, 999)}"
        body = "\n\n".join(" ".join(fill(line, random) for line in random.sample(LISTING_SENTENCES, 4)) for _ in range(2))
        text = f"Title: {title}\nSection: {topic}\nTags: color::{color}, use::{topic}\n\nThis {good} by {brand} comes in {color}. {body}"
        yield Document(id=f"item-{index}", text=text, family=f"{brand}-{good}", title=title, topic=topic)


def prose(name: str, sentences: list[str], number: int, random: Random) -> Iterable[Document]:
    """Short texts of three paragraphs."""
    for index in range(number):
        chosen = [fill(sentence, random) for sentence in random.sample(sentences, 12)]
        yield Document(id=f"{name}-{index}", text="\n\n".join(" ".join(chosen[start : start + 4]) for start in (0, 4, 8)))


def write(name: str, documents: Iterable[Document]) -> None:
    """One JSON object a line; empty fields are left out."""
    names = ("id", "text", "family", "title", "topic")
    rows = [{key: getattr(document, key) for key in names if getattr(document, key)} for document in documents]
    (HERE / f"{name}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    """All five files."""
    write("listings", listings(900, Random(1)))
    write("german", prose("german", GERMAN_SENTENCES, 100, Random(2)))
    write("french", prose("french", FRENCH_SENTENCES, 100, Random(3)))
    with tempfile.TemporaryDirectory() as folder:
        mirror = Mirror(Path(folder))
        write("novels", sample_bytes(list(parse_novels(mirror.unpack("r-cran-janeaustenr")[0])), 500_000))
        write("dictionary", sample_bytes(list(parse_dictd(mirror.unpack("dict-wn")[0])), 400_000))


def sample_bytes(documents: list[Document], most: int) -> list[Document]:
    """Documents drawn without replacement until there are `most` bytes of text, in their original order."""
    chosen, size = set(), 0
    for index in sorted(range(len(documents)), key=lambda i: draw(0, "sample", documents[i].id)):
        if size >= most:
            break
        chosen.add(index)
        size += documents[index].bytes
    return [document for index, document in enumerate(documents) if index in chosen]


if __name__ == "__main__":
    main()
