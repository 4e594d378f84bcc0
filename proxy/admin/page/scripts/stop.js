// The buttons that act: Stop acts at once, Stop everything asks first.

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
    await refresh(); // a refresh that was under way may have begun before the action
    await refresh();
    keepFocus(form);
  });
}

async function act(form) {
  const button = form.querySelector("button:not(.cancel)");
  const label = [...button.childNodes];
  form.dataset.busy = "";
  button.disabled = true;
  button.textContent = `${form.dataset.act}…`;
  try {
    const answer = await fetch(form.action, {
      method: "POST", headers: { Accept: "application/json" }, signal: AbortSignal.timeout(15_000),
    });
    if (!answer.ok) throw new Error((await answer.json()).detail);
  } catch (error) {
    document.getElementById("announcement").textContent = `It failed: ${error.message}`;
    button.title = `It failed: ${error.message}`;
  } finally {
    delete form.dataset.busy;
    button.disabled = false;
    button.replaceChildren(...label);
  }
}

// If the button is gone, the focus goes to the experiment that it acted on.
function keepFocus(form) {
  if (document.activeElement !== document.body) return;
  const name = /experiments\/([^/]+)\/stop/.exec(form.action)?.[1];
  const title = name && document.getElementById(`title-${name}`);
  (title ?? document.getElementById("experiments")).focus();
}
