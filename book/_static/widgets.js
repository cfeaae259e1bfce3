// Widgets without a network. Their files lie in vendor, and the theme's icons must not replace
// those of widgets, which would take their buttons' clicks.
window.FontAwesomeConfig = { observeMutations: false };
{
  const place = { baseUrl: new URL("vendor/", document.currentScript.src).href };
  if (window.require) window.require.config(place);
  else window.require = place; // what require.js reads when it is loaded
}
