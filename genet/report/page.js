for (const button of document.querySelectorAll("button.copy")) {
  button.onclick = () => {
    getSelection().selectAllChildren(button.previousElementSibling);
    document.execCommand("copy");  // works for pages opened from a disk too
    getSelection().empty();
    button.textContent = "copied";
  };
}
const slider = document.getElementById("budget");
if (slider) {
  const offers = JSON.parse(document.getElementById("frontier").textContent);
  const show = () => {
    const [ms, known, network] = offers[slider.value];
    document.getElementById("chosen").textContent = `From ${ms.toFixed(4)} ms per image on: ${network} (${known}).`;
  };
  slider.oninput = show;
  show();
}
