// Tells the server once, and at each change, how much room there is for pictures: the last of the steps that the window
// reaches, so that a window pulled wider by a hair does not draw everything anew. A change of theme is told, too: figures
// have their colour of text from the server.
const DARK = window.matchMedia("(prefers-color-scheme: dark)");
const THEME_MS = 500; // for the page itself to change first
let listening; // to the window

export default function ({ data, setStateValue }) {
  const report = () => {
    const room = data.steps.findLast((step) => window.innerWidth >= step) ?? data.steps[0];
    if (room !== data.room) setStateValue("room", room);
  };
  listening?.abort();
  const own = new AbortController(); // this call may be cleaned up after the next one has begun
  listening = own;
  window.addEventListener("resize", report, { signal: own.signal });
  const retint = () => setTimeout(() => setStateValue("dark", DARK.matches), THEME_MS);
  DARK.addEventListener("change", retint, { signal: own.signal });
  report();
  return () => own.abort();
}
