"""Which embedding rows look edited to somebody who holds the weights and has nothing to compare them with."""

import torch

ONE_TABLE = 0.99  # median cosine of embedding rows and head rows from which the two must once have been one table


def once_tied(model):
    """Whether the output head still is, or was, the same table as the embeddings."""
    head, table = model.network.get_output_embeddings().weight, model.embeddings
    if head.shape != table.shape:
        return False
    return float(torch.nn.functional.cosine_similarity(head.to(table.device).float(), table.float(), dim=1).median()) > ONE_TABLE


def differing(model):
    """Rows (n,) in which the embeddings differ from the output head that was once the same table; none of a model that had two."""
    if not once_tied(model):
        return torch.empty(0, dtype=torch.long, device=model.embeddings.device)
    return (model.network.get_output_embeddings().weight.to(model.embeddings.device) != model.embeddings).any(dim=1).nonzero().flatten()


def outliers(model, deviations=3.0):
    """Rows (n,) that are longer than the median by more than so many deviations (1.48 times the median one, as for a normal distribution)."""
    norms = model.embeddings.detach().float().norm(dim=1)
    above = norms - norms.median()
    far = above > deviations * 1.4826 * above.abs().median()
    far[model.special_ids] = False
    return far.nonzero().flatten()


def suspects(model):
    """Rows that differ from the head where that tells, else those of unusual length."""
    found = differing(model)
    return found if len(found) else outliers(model)
