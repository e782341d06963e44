// Tells the server once, and at each change, whether the window is too narrow for pictures side by side.
const NARROW = window.matchMedia("(max-width: 700px)");

export default function ({ data, setStateValue }) {
  const report = () => {
    if (NARROW.matches !== data.narrow) setStateValue("narrow", NARROW.matches);
  };
  NARROW.onchange = report;
  report();
  return () => {
    NARROW.onchange = null;
  };
}
