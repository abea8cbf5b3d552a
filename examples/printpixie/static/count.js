// Counts the chosen photos in the tray. The page works without it.
const count = document.getElementById("count");
if (count) {
  const first = count.textContent;
  const cents = Math.round(Number(count.dataset.price.slice(1)) * 100);
  const told = () => {
    const chosen = document.querySelectorAll('input[name="photo"]:checked').length;
    count.textContent = chosen ? `${chosen} ${chosen === 1 ? "print" : "prints"}, €${((chosen * cents) / 100).toFixed(2)}` : first;
  };
  document.addEventListener("change", told);
  told(); // a browser that goes back keeps what was chosen
}
