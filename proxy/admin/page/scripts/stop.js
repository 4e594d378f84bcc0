// The buttons that act: one experiment at once, everything after one question.

export function attend(refresh) {
  const dialog = document.getElementById("really");
  document.addEventListener("click", (event) => {
    if (event.target.closest("#kill")) dialog.showModal();
    if (event.target.closest("#really .cancel")) dialog.close();
  });
  document.addEventListener("submit", async (event) => {
    const form = event.target.closest("form[data-act]");
    if (form === null) return;
    event.preventDefault();
    await act(form);
    if (dialog.contains(form)) dialog.close();
    await refresh(); // the one that may be under way knows nothing of this
    await refresh();
    keepFocus(form);
  });
}

async function act(form) {
  const button = form.querySelector("button:not(.cancel)");
  const said = [...button.childNodes];
  form.dataset.busy = "";
  button.disabled = true;
  button.textContent = `${form.dataset.act}…`;
  try {
    const answer = await fetch(form.action, {
      method: "POST", headers: { Accept: "application/json" }, signal: AbortSignal.timeout(15_000),
    });
    if (!answer.ok) throw new Error((await answer.json()).detail);
  } catch (error) {
    document.getElementById("said").textContent = `It failed: ${error.message}`;
    button.title = `It failed: ${error.message}`;
  } finally {
    delete form.dataset.busy;
    button.disabled = false;
    button.replaceChildren(...said);
  }
}

// A button that is gone takes the focus along; what it acted on is the next best place.
function keepFocus(form) {
  if (document.activeElement !== document.body) return;
  const name = /experiments\/([^/]+)\/stop/.exec(form.action)?.[1];
  const title = name && document.getElementById(`title-${name}`);
  (title ?? document.getElementById("experiments")).focus();
}
