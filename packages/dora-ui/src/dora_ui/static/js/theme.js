/**
 * Sets the colours before the first paint: those that the viewer has chosen, else those of the system.
 * A classic script, because modules run after the first paint. The choice is a cookie, since each
 * `dora ui` has another port, and stored values of a page belong to its port.
 */
(() => {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const chosen = /(?:^|; )dora_theme=(dark|light)/.exec(document.cookie)?.[1];
    document.documentElement.dataset.theme = chosen ?? (system.matches ? "dark" : "light");
  };
  apply();
  system.addEventListener("change", apply);
})();
