(() => {
  let pause = 300;
  const look = async () => {
    try {
      const answer = await fetch(location.href, {
        headers: { "Hythe-Waiting": "1" },
        cache: "no-store",
        redirect: "manual",
      });
      const state = answer.headers.get("hythe-state");
      if (state !== "deployment_starting" && (state || answer.ok)) {
        location.reload();
        return;
      }
    } catch {
      // No network for a moment, or the host is being restarted.
    }
    pause = Math.min(pause * 1.3, 2000);
    setTimeout(look, pause);
  };
  setTimeout(look, pause);
})();
