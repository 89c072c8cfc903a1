// What points are: a picture or a text each, as the atlas has them.
const previewOf = (shown, place) => {
  if (place < 0 || place >= shown.points.length) return null;
  const name = shown.points[place], label = shown.labels[place], said = label ? `${name}, ${label}` : name;
  if (shown.kind === "text") return html("q", { title: said }, shown.previews[place]);
  return html("img", { src: `data:image/png;base64,${shown.previews[place]}`, alt: said, title: said });
};
// The points that differ most between two spaces, each beside its neighbors in either: turned around with the pair.
const drawPreviews = ({ worst }) => {
  const shown = dataset().previews, found = shown && pairIn({ pairs: shown.pairs, turns: true }, rowOf("source"), rowOf("target"));
  const kept = found && pairIn(dataset().maps, rowOf("source"), rowOf("target"));
  if (!toggled("previews", Boolean(found) && (!kept || differ(kept, worst))) || !found) return;
  const { pair, isTurned } = found, nWorst = shown.worst[pair].length / 2, spaces = isTurned ? [1, 0] : [0, 1];
  const lines = shown.worst[pair].flatMap((place, rank) => {
    const one = previewOf(shown, place);
    if (!one) return [];
    const side = (rank < nWorst) !== isTurned ? "source" : "target";
    const near = spaces.map((space) => html("div", { class: "previews" }, ...shown.neighbors[pair][space][rank].map((at) => previewOf(shown, at)).filter(Boolean)));
    return [[html("div", { class: "previews" }, one), `${shown.points[place]}${shown.labels[place] ? ` (${shown.labels[place]})` : ""}`, side, ...near]];
  });
  show("table-previews", table(["Point", "Name", "Seen from", `Nearest in ${spaceName(rowOf("source"))}`, `Nearest in ${spaceName(rowOf("target"))}`], lines, 5));
};
