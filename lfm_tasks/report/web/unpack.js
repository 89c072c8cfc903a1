// Unpacking: arrays come deflated in base64; each is inflated once, when it is first drawn.
const facts = JSON.parse(document.getElementById("data").textContent);
const MISSING = -32768;

const once = (make) => {
  const made = new WeakMap();
  return (packed) => {
    if (!packed) return null;
    if (!made.has(packed)) made.set(packed, make(packed));
    return made.get(packed);
  };
};

const inflated = async (text) => {
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

// (row, column) → number; NaN where there is none.
const matrix = once(async ({ steps, unit, columns, symmetric }) => {
  const bytes = await inflated(steps), n = bytes.length / 2;
  return (row, column) => {
    const [far, near] = row >= column ? [row, column] : [column, row];
    const at = symmetric ? (far * (far + 1)) / 2 + near : row * columns + column;
    const step = ((bytes[at] | (bytes[n + at] << 8)) << 16) >> 16;
    return step === MISSING ? NaN : step * unit;
  };
});

// (entry, place) → number, each entry with a unit of its own.
const entries = once(async ({ steps, units }) => {
  const bytes = new Int8Array((await inflated(steps)).buffer), size = bytes.length / units.length;
  return (entry, place) => bytes[entry * size + place] * units[entry];
});

const together = async (promised) => {
  const names = Object.keys(promised);
  const found = await Promise.all(names.map((name) => promised[name]));
  return Object.fromEntries(names.map((name, i) => [name, found[i]]));
};

const text = (value, digits = 2) => {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (digits === 4 && value >= 0 && value < 0.00005) return "< 0.0001";
  const written = value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1");
  return digits < 3 ? written.replace(/^(-?)0\./, "$1.") : written;  // short where a cell has to hold it
};
