"""The two factorizations: of token embeddings (EMBER, arXiv 2606.03695, section 3) and of MLP activations (arXiv 2506.10920)."""

import math

import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted


class SparseMatrixFactorization(TransformerMixin, BaseEstimator):
    """Approximate X (n_tokens, d) by `activations_ @ components_`, few tokens a component.

    Alternating ridge least squares from a seeded random start. After each update of the
    activations only the largest in absolute value are kept in every column (winner take all).
    The descent is not monotone, since cutting can raise the error, so the best factors seen
    are the ones kept.

    Parameters
    ----------
    n_components : rank K.
    sparsity : share of the tokens that may be active on a component, `ceil(sparsity * n_tokens)` at most.
    alpha : ridge of both least-squares steps; times 10 on a singular solve, at most 4 tries.
    max_iter, patience, tol : stop after `max_iter` iterations, or after `patience` iterations in a
        row that do not lower the best squared error by more than `tol`.
    random_state : seed of the start; activations are drawn first, then components.
    device : torch device to work on; None means the CPU.

    Attributes
    ----------
    components_ : (K, d) float32 array, dense directions.
    activations_ : (n_tokens, K) float32 array, signed and sparse, the fitted ones.
    reconstruction_err_ : squared Frobenius error of the factors kept, summed in float64.
    n_iter_ : iterations run. error_curve_ : the error after each of them.
    """

    def __init__(
        self,
        n_components,
        sparsity=0.01,
        alpha=1e-4,
        max_iter=20000,
        patience=500,
        tol=1e-4,
        random_state=42,
        device=None,
    ):
        self.n_components = n_components
        self.sparsity = sparsity
        self.alpha = alpha
        self.max_iter = max_iter
        self.patience = patience
        self.tol = tol
        self.random_state = random_state
        self.device = device

    def fit(self, X, y=None, progress=None):
        """Factorize X (n_tokens, d). `progress(iteration, best_error)` is called after each iteration."""
        X = self._checked(X)
        tokens, width = X.shape
        generator = torch.Generator().manual_seed(self.random_state)
        G = torch.randn(tokens, self.n_components, generator=generator, dtype=X.dtype).to(X.device)
        F = torch.randn(width, self.n_components, generator=generator, dtype=X.dtype).to(X.device)
        best, best_F, best_G, stale, curve = math.inf, F, G, 0, []
        for iteration in range(self.max_iter):
            F, G = self._normalised(_least_squares(X.T @ G, G, self.alpha), G)
            G = _keep_winners(_least_squares(X @ F, F, self.alpha), self.sparsity)
            error = (X - G @ F.T).double().square().sum().item()
            curve.append(error)
            stale = 0 if error < best - self.tol else stale + 1
            if error < best:
                best, best_F, best_G = error, F, G
            if progress:
                progress(iteration, best)
            if stale >= self.patience:
                break
        self.components_ = best_F.T.contiguous().cpu().numpy()
        self.activations_ = best_G.cpu().numpy()
        self.reconstruction_err_ = best
        self.error_curve_ = curve
        self.n_iter_ = len(curve)
        self.n_features_in_ = width
        return self

    def fit_transform(self, X, y=None):
        """The fitted activations (n_tokens, K) of X."""
        return self.fit(X).activations_

    def transform(self, X):
        """Activations (n, K) of rows X on the fitted components; the same share of winners a column."""
        check_is_fitted(self, "components_")
        X = self._checked(X)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(f"X has {X.shape[1]} columns; the factorization was fitted on {self.n_features_in_}.")
        F = torch.as_tensor(self.components_, device=X.device).T
        return _keep_winners(_least_squares(X @ F, F, self.alpha), self.sparsity).cpu().numpy()

    def inverse_transform(self, activations):
        """Rows (n, d) from activations (n, K)."""
        check_is_fitted(self, "components_")
        return activations @ self.components_

    def _checked(self, X):
        X = torch.as_tensor(X).detach().to(self.device or "cpu", torch.float32)
        if X.ndim != 2 or not torch.isfinite(X).all():
            raise ValueError("X must be a matrix (n_tokens, d) of finite numbers.")
        if self.n_components < 1 or not 0 < self.sparsity <= 1:
            raise ValueError("n_components must be at least 1 and sparsity in (0, 1].")
        return X

    @staticmethod
    def _normalised(F, G):
        """Unit columns of G; F takes the scale up."""
        norms = G.norm(dim=0)
        norms = torch.where(norms > 0, norms, 1.0)
        return F * norms, G / norms


class SemiNonnegativeFactorization(BaseEstimator):
    """Approximate X (n, m) by `activations_ @ components_` with activations of no negative value and few columns of X a component.

    Of MLP activations X (tokens, neurons) a component is a small group of neurons, and its activation how much a token
    moves them (semi-NMF, Ding et al. 2010, with winner take all as in arXiv 2506.10920): least squares for the components, of which the largest
    in absolute value are kept, and the multiplicative rule for the activations. The factors kept are the best seen.

    Parameters: `n_components`; `sparsity`, the share of the columns of X that a component may use; `alpha`, ridge of the least squares;
    `max_iter`; `random_state`; `device`. Attributes: `components_` (K, m), `activations_` (n, K), `reconstruction_err_` (squared Frobenius norm),
    `error_curve_`.
    """

    def __init__(self, n_components, sparsity=0.01, alpha=1e-4, max_iter=100, random_state=42, device=None):
        self.n_components = n_components
        self.sparsity = sparsity
        self.alpha = alpha
        self.max_iter = max_iter
        self.random_state = random_state
        self.device = device

    def fit(self, X, y=None):
        """Factorize X (n, m)."""
        X = torch.as_tensor(X).detach().to(self.device or "cpu", torch.float32)
        G = torch.rand(len(X), self.n_components, generator=torch.Generator().manual_seed(self.random_state), dtype=X.dtype).to(X.device)
        best, curve, whole = math.inf, [], X.double().square().sum().item()
        for _ in range(self.max_iter):
            F = _keep_winners(_least_squares(X.T @ G, G, self.alpha), self.sparsity)
            fitted, gram = X @ F, F.T @ F
            above = fitted.clamp(min=0) + G @ (-gram).clamp(min=0)
            below = (-fitted).clamp(min=0) + G @ gram.clamp(min=0)
            G = G * torch.sqrt(above / below.clamp(min=1e-12))
            error = whole - 2 * (G * fitted).double().sum().item() + ((G.T @ G) * gram).double().sum().item()
            curve.append(error)
            if error < best:
                best, best_F, best_G = error, F, G
        self.components_, self.activations_ = best_F.T.contiguous().cpu().numpy(), best_G.cpu().numpy()
        self.reconstruction_err_, self.error_curve_ = best, curve
        return self


def _keep_winners(factor, share):
    """The largest in absolute value of every column, `ceil(share * n)` of them; the others are 0."""
    winners = factor.abs().topk(math.ceil(share * len(factor)), dim=0).indices
    return torch.zeros_like(factor).scatter(0, winners, factor.gather(0, winners))


def _least_squares(target, basis, ridge, tries=4):
    """target @ (basis^T basis + ridge I)^-1, with a larger ridge where that is singular."""
    gram = basis.T @ basis
    eye = torch.eye(len(gram), device=gram.device)
    for attempt in range(tries):
        solution, info = torch.linalg.solve_ex(gram + ridge * 10**attempt * eye, target.T)
        if info == 0 and torch.isfinite(solution).all():
            return solution.T
    raise ValueError(f"The factorization stays singular with a ridge of {ridge * 10 ** (tries - 1):g}; lower n_components.")
