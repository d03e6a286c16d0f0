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
  const frontier = JSON.parse(document.getElementById("frontier").textContent);
  const show = () => {
    const [ms, accuracy, network] = frontier[slider.value];
    document.getElementById("chosen").textContent =
      `${ms.toFixed(4)} ms per image, ${accuracy}, both predicted: ${network}`;
  };
  slider.oninput = show;
  show();
}
