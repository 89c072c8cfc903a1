// Zoom and pan: Ctrl and the wheel, two fingers, buttons, + − 0; a chart larger than its frame is dragged or scrolled.
const MOST_ZOOM = 8, ZOOM_STEP = 1.5;
const zoomOf = (host) => host.zoom ?? 1;
const areaOf = (host) => host.querySelector("svg .area").getBoundingClientRect();

// Called before a chart is drawn: an enlarged one keeps the room on the page that it had; a small one may grow to the right.
const LEAST_FRAME = 480;
const keepFrame = (host) => {
  const frame = host.parentElement, isEnlarged = zoomOf(host) > 1;
  if (isEnlarged && !frame.classList.contains("enlarged")) {
    const { width, height } = host.getBoundingClientRect();
    // Beside it there is a scroll bar, or two.
    frame.style.maxWidth = `${Math.max(LEAST_FRAME, Math.ceil(width) + 18)}px`;
    frame.style.maxHeight = `min(90vh, ${Math.ceil(height) + 18}px)`;
  }
  if (!isEnlarged) [frame.style.maxWidth, frame.style.maxHeight] = ["", ""];
  frame.classList.toggle("enlarged", isEnlarged);
};
// What lies at (x, y) of the screen stays there; without a place, what lies in the middle of the frame.
const zoomTo = (host, zoom, x = null, y = null) => {
  const to = Math.max(1, Math.min(MOST_ZOOM, zoom)), frame = host.parentElement, box = frame.getBoundingClientRect(), before = areaOf(host);
  if (to === zoomOf(host)) return;
  const at = [x ?? box.left + frame.clientWidth / 2, y ?? box.top + frame.clientHeight / 2];
  const shares = [(at[0] - before.left) / before.width, (at[1] - before.top) / before.height].map((share) => Math.max(0, Math.min(1, share)));
  host.zoom = to;
  host.redraw();
  const after = areaOf(host);
  frame.scrollLeft += after.left + shares[0] * after.width - at[0];
  frame.scrollTop += after.top + shares[1] * after.height - at[1];
};
const zoomBy = (host, factor, x, y) => zoomTo(host, zoomOf(host) * factor, x, y);
const ZOOM_KEYS = { "+": ZOOM_STEP, "=": ZOOM_STEP, "-": 1 / ZOOM_STEP, "_": 1 / ZOOM_STEP, "0": 0 };

// Turns of the wheel between two frames of the screen are one step; without Ctrl the wheel is the page's.
const zoomByWheel = (host) => {
  let turned = 0, place = null;
  host.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    if (!place) requestAnimationFrame(() => {
      const [factor, [x, y]] = [Math.exp(Math.max(-1, Math.min(1, -turned / 300))), place];
      [turned, place] = [0, null];
      zoomBy(host, factor, x, y);
    });
    turned += event.deltaY * (event.deltaMode ? 30 : 1);
    place = [event.clientX, event.clientY];
  }, { passive: false });
};
// While two fingers move the drawing is stretched; it is drawn again when they leave, since a new one would not feel them.
const zoomByFingers = (host) => {
  let began = null;
  const between = ([a, b]) => ({ far: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY), x: (a.clientX + b.clientX) / 2, y: (a.clientY + b.clientY) / 2 });
  host.addEventListener("touchstart", (event) => {
    if (event.touches.length !== 2) return;
    event.preventDefault();
    began = { ...between(event.touches), factor: 1 };
    tip(null);
  }, { passive: false });
  host.addEventListener("touchmove", (event) => {
    if (!began || event.touches.length !== 2) return;
    event.preventDefault();
    const drawing = host.querySelector("svg"), box = host.getBoundingClientRect(), zoom = zoomOf(host);
    began.factor = Math.max(1 / zoom, Math.min(MOST_ZOOM / zoom, between(event.touches).far / (began.far || 1)));
    drawing.style.transformOrigin = `${began.x - box.left}px ${began.y - box.top}px`;
    drawing.style.transform = `scale(${began.factor})`;
  }, { passive: false });
  const end = () => {
    if (!began) return;
    const { factor, x, y } = began;
    began = null;
    host.querySelector("svg").style.transform = "";
    zoomBy(host, factor, x, y);
  };
  host.addEventListener("touchend", end);
  host.addEventListener("touchcancel", end);
};
// A mouse drags what is larger than its frame; fingers scroll it, as they scroll the page.
const panByMouse = (host) => {
  const frame = host.parentElement;
  let from = null;
  host.addEventListener("pointerdown", (event) => {
    host.wasDragged = false;
    if (event.pointerType !== "mouse" || event.button || zoomOf(host) === 1) return;
    from = { x: event.clientX, y: event.clientY, left: frame.scrollLeft, top: frame.scrollTop };
  });
  addEventListener("pointermove", (event) => {
    if (!from) return;
    const [right, down] = [event.clientX - from.x, event.clientY - from.y];
    if (!host.wasDragged && Math.hypot(right, down) < 5) return;
    host.wasDragged = true;
    host.classList.add("dragged");
    tip(null);
    frame.scrollLeft = from.left - right;
    frame.scrollTop = from.top - down;
  });
  const end = () => { from = null; host.classList.remove("dragged"); };
  addEventListener("pointerup", end);
  addEventListener("pointercancel", end);
};
const beginZoom = (host) => { zoomByWheel(host); zoomByFingers(host); panByMouse(host); };
